-- KEYS: a lane, as in `enter.lua`.
-- ARGV: token.
leave_lane(KEYS[1], ARGV[1])
return { DONE }
