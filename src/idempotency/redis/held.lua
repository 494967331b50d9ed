-- Whether the event is in progress by this token, and the lane is this token's too.
local raw, lane = redis.pcall('GET', KEYS[1]), KEYS[2] and redis.pcall('GET', KEYS[2])
local is_held = type(raw) == 'string' and #raw == LENGTH and string.byte(raw) == VERSION
  and string.byte(raw, 2) % 16 == IN_PROGRESS and string.sub(raw, 21, 28) == ARGV[1]
  and (not lane or type(lane) == 'string' and #lane == LANE_LENGTH and string.byte(lane) == LANE_VERSION
    and string.sub(lane, 3, 10) == ARGV[1])
