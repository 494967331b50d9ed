-- KEYS: an event's record.
-- Returns nothing done where there is none; else the record, and its parts as they count now.
local FOUND = 9
local record, answer = read()
if answer then return answer end
if not record then return { DONE } end
local now = now_ms()
local at = record.kind == IN_PROGRESS and end_of(record, now) or record.at
return { FOUND, redis.call('GET', KEYS[1]), record.kind, record.steps, record.how, record.token, at, now }
