-- KEYS: a lane, as in `enter.lua`.
-- ARGV: token, how long the claim lasts (ms).
return stay_in_lane(KEYS[1], ARGV[1], tonumber(ARGV[2]), now_ms()) or { DONE }
