-- KEYS: the record; its lane, as in `claim.lua`.
-- ARGV: token, how long the claim lasts (ms), time to live (ms).
local record, answer = owned(ARGV[1])
if not record then return answer end
if record.kind ~= IN_PROGRESS then return { NOT_OWNER } end
local now = now_ms()
if KEYS[2] then
  local lost = stay_in_lane(KEYS[2], ARGV[1], tonumber(ARGV[2]), now)
  if lost then return lost end
end
-- Its owner was told of a later end: one that was sent earlier may arrive late.
record.at = math.max(end_of(record, now), now + tonumber(ARGV[2]))
record.how = math.max(record.how, in_seconds(tonumber(ARGV[2])))
write(record, record.at - now + tonumber(ARGV[3]))
return { DONE }
