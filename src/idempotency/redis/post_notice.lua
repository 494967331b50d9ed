-- Replaces the notice, if it is still the one that was read: its text, for how many ms it lasts, and the text that was
-- read. An empty one ends it.
now_ms()
local notice = redis.pcall('GET', KEYS[1])
if (type(notice) == 'string' and notice or '') ~= ARGV[3] then return { NOT_OWNER } end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { DONE }
