-- KEYS: the record; its lane, as in `claim.lua`.
-- ARGV: token, steps.
local record, answer = owned(ARGV[1])
if not record then return answer end
if record.kind ~= IN_PROGRESS then return { NOT_OWNER } end
record.steps = bit.bor(record.steps, tonumber(ARGV[2]))
write(record)
-- What is done is done, whoever has the lane.
return KEYS[2] and check_lane(KEYS[2], ARGV[1], now_ms()) or { DONE }
