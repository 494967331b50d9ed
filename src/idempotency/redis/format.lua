-- How the record of an event is read and written; `layout.lua` says what it looks like.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The record, or nil where there is none; or nil and an answer. What cannot be read is left as it is.
local function read()
  local raw = redis.pcall('GET', KEYS[1])
  if type(raw) == 'table' then
    if string.find(raw.err, 'WRONGTYPE', 1, true) then
      return nil, { UNREADABLE, 'it is not a string' }
    end
    return nil, raw
  end
  if not raw then return nil end
  local version = string.byte(raw)
  if version ~= VERSION then
    return nil, { UNREADABLE, 'its format is ' .. tostring(version) .. ', not ' .. VERSION }
  end
  if #raw ~= LENGTH then return nil, { UNREADABLE, 'it has ' .. #raw .. ' bytes' } end
  local _, kind, steps, how, hash, token, at = struct.unpack(LAYOUT, raw)
  local hash_version = math.floor(kind / 16) + 1
  kind = kind % 16
  if kind < IN_PROGRESS or kind > HANDLED then
    return nil, { UNREADABLE, 'its kind is ' .. kind }
  end
  return { kind = kind, hash_version = hash_version, steps = steps, how = how, hash = hash, token = token, at = at }
end

-- Writes the record, to be kept for so long, or for as long as before.
local function write(record, keep_ms)
  local raw = struct.pack(
    LAYOUT, VERSION, record.kind + 16 * (record.hash_version - 1), record.steps, record.how, record.hash, record.token, record.at)
  if keep_ms then
    redis.call('SET', KEYS[1], raw, 'PX', keep_ms)
  else
    redis.call('SET', KEYS[1], raw, 'KEEPTTL')
  end
end

-- How long a claim lasts, as it is written.
local function in_seconds(lasts_ms)
  return math.max(1, math.min(LONG_S, math.ceil(lasts_ms / 1000)))
end

-- When the claim ends at the latest.
local function end_of(record, now)
  local lasts_ms = CLAIM_MS_MAX
  if record.how > 0 and record.how < LONG_S then lasts_ms = record.how * 1000 end
  return math.min(record.at, now + lasts_ms)
end

-- The record if it bears this token, in whatever kind; or nil and an answer.
local function owned(token)
  local record, answer = read()
  if answer then return nil, answer end
  if not record or record.token ~= token then return nil, { NOT_OWNER } end
  return record
end

