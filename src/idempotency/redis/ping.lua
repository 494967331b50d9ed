-- Whether a record could be written. No event's key: an id is never empty. Nothing is overwritten.
now_ms()
redis.call('SET', KEYS[1], '', 'NX', 'PX', 1)
return { DONE }
