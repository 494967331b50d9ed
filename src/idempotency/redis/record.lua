-- ARGV: token, steps.
local record, answer = owned(ARGV[1])
if not record then return answer end
if record.kind ~= IN_PROGRESS then return { NOT_OWNER } end
record.steps = bit.bor(record.steps, tonumber(ARGV[2]))
write(record)
return { DONE }
