-- ARGV: content hash, token, how long the claim lasts (ms), time to live (ms), every step that is known.
local hash, token, lasts_ms, ttl_ms, known = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local record, answer = read()
if answer then return answer end
if record and record.hash ~= hash then return { ID_REUSED, record.hash } end
if record and record.kind == HANDLED then return { WAS_HANDLED, record.how, record.at } end
local steps = record and record.steps or 0
if bit.bor(steps, known) ~= known then return { UNREADABLE, 'its steps are ' .. steps } end
local now = now_ms()
if record and record.kind == IN_PROGRESS and record.token ~= token and record.at > now then
  return { ELSEWHERE, record.at - now }
end
local at = now + lasts_ms
-- Its owner was told of a later end: this one was sent earlier and arrives late.
if record and record.kind == IN_PROGRESS and record.token == token then at = math.max(at, record.at) end
-- Kept beyond the claim's own end: the steps of one that ran out stay known.
write({ kind = IN_PROGRESS, steps = steps, how = 0, hash = hash, token = token, at = at }, at - now + ttl_ms)
return { OURS, steps }
