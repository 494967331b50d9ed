-- Whether a record could be written, and the notice. Its key is no event's: an id is never empty. Nothing is overwritten.
local now = now_ms()
redis.call('SET', KEYS[1], '', 'NX', 'PX', 1)
local notice = redis.pcall('GET', KEYS[1])
return { DONE, type(notice) == 'string' and notice or '', now }
