-- Replaces the notice: its text, and for how many ms it lasts. An empty one ends it.
now_ms()
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { DONE }
