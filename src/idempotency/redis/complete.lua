-- KEYS: the record; its lane, as in `claim.lua`.
-- ARGV: token, how it was handled, time to live (ms).
-- First, also where the record is gone: nobody would come back for the lane.
if KEYS[2] then leave_lane(KEYS[2], ARGV[1]) end
local record, answer = owned(ARGV[1])
if not record then return answer end
if record.kind == HANDLED then return { DONE } end
if record.kind ~= IN_PROGRESS then return { NOT_OWNER } end
record.kind, record.how, record.at = HANDLED, tonumber(ARGV[2]), now_ms()
write(record, ARGV[3])
return { DONE }
