-- The lane of a reservation: who works on its events in all processes, and whose turn is next.
--
-- A holder's turn ends with its claim on its event, which bears the same token. One ticket is kept: of those that wait
-- the one that was sent first has it, for as long as it asks again. What cannot be read counts as no lane: order is lost
-- then, and nothing else.
-- A ticket ends this long after its owner asked: longer than the longest pause between two questions, if the store is quick
-- and a worker is free.
local TICKET_MS = 1250

local function read_lane(key, now)
  local raw = redis.pcall('GET', key)
  if type(raw) == 'string' and #raw == LANE_LENGTH and string.byte(raw) == LANE_VERSION then
    local _, how, token, at, next_token, next_sent, next_at = struct.unpack(LANE_LAYOUT, raw)
    return {
      how = how, token = token, at = end_of({ how = how, at = at }, now),
      next_token = next_token, next_sent = next_sent, next_at = math.min(next_at, now + TICKET_MS),
    }
  end
  return { how = 0, token = NOBODY, at = 0, next_token = NOBODY, next_sent = 0, next_at = 0 }
end

-- Writes the lane, to be kept for as long as somebody has it or is next.
local function write_lane(key, lane, now)
  local keep_ms = math.max(lane.at, lane.next_at) - now
  if keep_ms <= 0 then
    -- Not DEL: the user needs no permission but that of SET.
    redis.call('SET', key, '', 'PX', 1)
    return
  end
  local raw = struct.pack(
    LANE_LAYOUT, LANE_VERSION, lane.how, lane.token, lane.at, lane.next_token, lane.next_sent, lane.next_at)
  redis.call('SET', key, raw, 'PX', keep_ms)
end

local function is_before(sent, token, other_sent, other_token)
  if sent ~= other_sent then return sent < other_sent end
  return token < other_token
end

-- Gives the lane to this token, to be its own for `lasts_ms` at least.
local function hold_lane(key, lane, token, lasts_ms, now)
  local at, how = now + lasts_ms, in_seconds(lasts_ms)
  if lane.token == token then at, how = math.max(at, lane.at), math.max(how, lane.how) end
  lane.token, lane.at, lane.how = token, at, how
  if lane.next_token == token then lane.next_token, lane.next_sent, lane.next_at = NOBODY, 0, 0 end
  write_lane(key, lane, now)
end

-- Enters the lane. Returns nothing, or the answer that another one comes first, with the time that it has at most.
local function enter_lane(key, token, sent, lasts_ms, now)
  local lane = read_lane(key, now)
  local is_held = lane.at > now
  if not (is_held and lane.token == token) then
    local has_next = lane.next_at > now and lane.next_token ~= token
    local is_first = not has_next or is_before(sent, token, lane.next_sent, lane.next_token)
    if is_held or not is_first then
      local rest = (is_held and lane.at or lane.next_at) - now
      if is_first then
        lane.next_token, lane.next_sent, lane.next_at = token, sent, now + TICKET_MS
        write_lane(key, lane, now)
      end
      return { BEHIND, rest }
    end
  end
  hold_lane(key, lane, token, lasts_ms, now)
  return nil
end

-- Returns nothing, or the answer that another one has the lane. One that was forgotten counts as this token's.
local function check_lane(key, token, now)
  local lane = read_lane(key, now)
  if lane.token ~= token and lane.at > now then return { LANE_LOST } end
  return nil, lane
end

-- Goes on in the lane, also where it was forgotten meanwhile. Returns nothing, or the answer that another one has it.
local function stay_in_lane(key, token, lasts_ms, now)
  local lost, lane = check_lane(key, token, now)
  if lost then return lost end
  hold_lane(key, lane, token, lasts_ms, now)
  return nil
end

-- Leaves the lane, if this token has it or is next.
local function leave_lane(key, token)
  local now = now_ms()
  local lane = read_lane(key, now)
  if lane.token == token then
    lane.token, lane.at, lane.how = NOBODY, 0, 0
  elseif lane.next_token == token then
    lane.next_token, lane.next_sent, lane.next_at = NOBODY, 0, 0
  else
    return
  end
  write_lane(key, lane, now)
end

