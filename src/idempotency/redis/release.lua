-- KEYS: the record; its lane, as in `claim.lua`.
-- ARGV: token, steps, time to live (ms).
-- First, also where the record is gone: nobody would come back for the lane.
if KEYS[2] then leave_lane(KEYS[2], ARGV[1]) end
local record, answer = owned(ARGV[1])
if not record then return answer end
if record.kind == GIVEN_UP then return { DONE } end
if record.kind ~= IN_PROGRESS then return { NOT_OWNER } end
record.kind, record.how, record.at = GIVEN_UP, 0, now_ms()
record.steps = bit.bor(record.steps, tonumber(ARGV[2]))
write(record, ARGV[3])
return { DONE }
