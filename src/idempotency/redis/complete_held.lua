-- Where nobody waits for the lane.
if is_held and (not lane or string.sub(lane, 35) == NEVER) then
  local time = redis.call('TIME')
  local at = struct.pack('>I8', time[1] * 1000 + math.floor(time[2] / 1000))
  local kind = string.byte(raw, 2) - IN_PROGRESS + HANDLED
  local handled = string.char(VERSION, kind, string.byte(raw, 3), ARGV[2]) .. string.sub(raw, 5, 28) .. at
  redis.call('SET', KEYS[1], handled, 'PX', ARGV[3])
  if lane then redis.call('SET', KEYS[2], '', 'PX', 1) end
  return { DONE }
end
