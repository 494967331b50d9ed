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
-- The user may have no permission for DEL.
local deleted = redis.pcall('DEL', KEYS[1])
if type(deleted) == 'table' then redis.call('SET', KEYS[1], '', 'PX', 1) end
return { DONE }
