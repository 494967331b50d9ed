-- KEYS: a reservation's lane, on another server than the event's record.
-- ARGV: token, when the message was sent (ms), how long the claim lasts (ms).
return enter_lane(KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms()) or { DONE }
