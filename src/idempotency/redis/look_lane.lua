-- KEYS: a reservation's lane.
-- Returns who has it and who is next, each with the time that is left (ms), which is 0 where it is nobody.
local FOUND = 9
local now = now_ms()
local lane = read_lane(KEYS[1], now)
return { FOUND, lane.token, math.max(0, lane.at - now), lane.next_token, math.max(0, lane.next_at - now) }
