-- KEYS: a lane, as in `enter.lua`.
-- ARGV: token.
return check_lane(KEYS[1], ARGV[1], now_ms()) or { DONE }
