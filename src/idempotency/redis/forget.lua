-- KEYS: an event's record.
-- ARGV: the record as it was shown.
local CHANGED = 10
local record, answer = read()
if answer then return answer end
if not record then return { DONE } end
local now = now_ms()
local left_ms = record.kind == IN_PROGRESS and end_of(record, now) - now or 0
if left_ms > 0 then return { ELSEWHERE, left_ms } end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { CHANGED } end
-- The user may have no permission for DEL. Then a record is written over it that binds nobody, for a millisecond: given
-- up, of nobody, without steps, and of a version of the content hash that no process has, so that it is compared to none.
local deleted = redis.pcall('DEL', KEYS[1])
if type(deleted) == 'table' then
  local nothing = string.rep('\0', 16)
  write({ kind = GIVEN_UP, hash_version = 16, steps = 0, how = 0, hash = nothing, token = NOBODY, at = now }, 1)
end
return { DONE }
