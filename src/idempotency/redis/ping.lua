-- Whether a record could be written, and the notice. Its key is no event's: an id is never empty. Nothing is overwritten.
local now = now_ms()
redis.call('SET', KEYS[1], '', 'NX', 'PX', 1)
return { DONE, redis.call('GET', KEYS[1]) or '', now }
