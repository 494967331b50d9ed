-- KEYS: the event's record; its reservation's lane, where events of a reservation are ordered and the lane is on this server.
-- ARGV: content hash, token, how long the claim lasts (ms), time to live (ms), every step that is known,
-- version of the content hash, when the message was sent (ms).
local hash, token, lasts_ms, ttl_ms, known = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local hash_version = tonumber(ARGV[6])
local record, answer = read()
if answer then return answer end
-- Hashes of two versions say nothing about each other.
if record and record.hash_version == hash_version and record.hash ~= hash then return { ID_REUSED, record.hash } end
if record and record.kind == HANDLED then return { WAS_HANDLED, record.how, record.at } end
local steps = record and record.steps or 0
if bit.bor(steps, known) ~= known then return { UNREADABLE, 'its steps are ' .. steps } end
local now = now_ms()
local at, how = now + lasts_ms, in_seconds(lasts_ms)
if record and record.kind == IN_PROGRESS then
  local ends = end_of(record, now)
  if record.token == token then
    -- Its owner was told of a later end: this one was sent earlier and arrives late.
    at, how = math.max(at, ends), math.max(how, record.how)
  elseif ends > now then
    if ends < record.at then
      -- The clock has stepped back. Written down, or the end would be as far away whenever it is asked for.
      record.at = ends
      write(record, ends - now + ttl_ms)
    end
    return { ELSEWHERE, ends - now }
  end
end
if KEYS[2] then
  local behind = enter_lane(KEYS[2], token, tonumber(ARGV[7]), lasts_ms, now)
  if behind then return behind end
end
-- Kept beyond the claim's own end: the steps of one that ran out stay known.
local claimed = { kind = IN_PROGRESS, steps = steps, how = how, hash = hash, hash_version = hash_version, token = token, at = at }
write(claimed, at - now + ttl_ms)
return { OURS, steps }
