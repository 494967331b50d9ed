-- ARGV: token, how long the claim lasts (ms), time to live (ms).
local record, answer = owned(ARGV[1])
if not record then return answer end
if record.kind ~= IN_PROGRESS then return { NOT_OWNER } end
record.at = now_ms() + tonumber(ARGV[2])
write(record, tonumber(ARGV[2]) + tonumber(ARGV[3]))
return { DONE }
