-- An event without a record, in a lane that nobody has or waits for.
if tonumber(ARGV[3]) > 0 and not redis.pcall('GET', KEYS[1]) and not (KEYS[2] and redis.pcall('GET', KEYS[2])) then
  local time, lasts_ms = redis.call('TIME'), tonumber(ARGV[3])
  local at = time[1] * 1000 + math.floor(time[2] / 1000) + lasts_ms
  local how = math.max(1, math.min(LONG_S, math.ceil(lasts_ms / 1000)))
  local kind = IN_PROGRESS + 16 * (ARGV[6] - 1)
  local raw = struct.pack(LAYOUT, VERSION, kind, 0, how, ARGV[1], ARGV[2], at)
  redis.call('SET', KEYS[1], raw, 'PX', lasts_ms + ARGV[4])
  if KEYS[2] then
    local lane = struct.pack(LANE_LAYOUT, LANE_VERSION, how, ARGV[2], at, NOBODY, 0, 0)
    redis.call('SET', KEYS[2], lane, 'PX', lasts_ms)
  end
  return { OURS, 0 }
end
