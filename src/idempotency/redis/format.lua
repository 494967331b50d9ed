-- Begins every script: how the record of an event is read and written, and what a script may answer.
--
-- A record is one string of 36 bytes, short enough for Redis to keep it in one piece of memory:
--   version (1), kind (1), steps done (1), how it was handled (1), content hash (16), token (8),
--   time in ms (8): when the claim ends, or when the event was handled or given up.
-- The kind has the version of the content hash, less one, in its upper four bits. In place of how it was handled an event
-- in progress has how long its claim lasts at most, in seconds: 0 where that was not written, 255 for all that is longer.
-- Whole numbers are big-endian. The time is the server's: one clock for all pods. It may step back, on one server or with
-- a failover to another: then a claim ends by how long it lasts at most.
local VERSION, LENGTH, LAYOUT = 1, 36, '>BBBBc16c8I8'
local IN_PROGRESS, GIVEN_UP, HANDLED = 1, 2, 3
-- No claim lasts longer than a message may be hidden.
local LONG_S, CLAIM_MS_MAX = 255, 12 * 3600 * 1000
-- The first element of an answer; `reply.rs` has them too.
local DONE, NOT_OWNER, UNREADABLE, OURS, WAS_HANDLED, ID_REUSED, ELSEWHERE = 0, 1, 2, 3, 4, 5, 6

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

