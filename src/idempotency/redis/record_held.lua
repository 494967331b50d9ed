if is_held then
  local steps = bit.bor(string.byte(raw, 3), tonumber(ARGV[2]))
  redis.call('SET', KEYS[1], string.sub(raw, 1, 2) .. string.char(steps) .. string.sub(raw, 4), 'KEEPTTL')
  return { DONE }
end
