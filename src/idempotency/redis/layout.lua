-- Begins every script: what a record, a lane and an answer look like.
--
-- A record is one string of 36 bytes, short enough for Redis to keep it in one piece of memory:
--   version (1), kind (1), steps done (1), how it was handled (1), content hash (16), token (8),
--   time in ms (8): when the claim ends, or when the event was handled or given up.
-- The kind has the version of the content hash, less one, in its upper four bits. In place of how it was handled an event
-- in progress has how long its claim lasts at most, in seconds: 0 where that was not written, 255 for all that is longer.
--
-- A lane is one string of 42 bytes:
--   version (1), how long the holder's turn lasts at most, in seconds (1, as in an event's record),
--   the holder's token (8), when its turn ends (8),
--   the token of the next in line (8), when its message was sent (8), when its ticket ends (8).
-- Times are in ms. A time of 0 is in the past: there is no holder, or no next in line.
--
-- Whole numbers are big-endian. The time is the server's: one clock for all pods. It may step back, on one server or with
-- a failover to another: then a claim ends by how long it lasts at most.
--
-- To define a function costs as much as to run it. So the common case of a script, if there is one, comes before the
-- functions (`claim_new.lua`, `record_held.lua`, `complete_held.lua`); they answer as the whole script would.
local VERSION, LENGTH, LAYOUT = 1, 36, '>BBBBc16c8I8'
local IN_PROGRESS, GIVEN_UP, HANDLED = 1, 2, 3
-- No claim lasts longer than a message may be hidden.
local LONG_S, CLAIM_MS_MAX = 255, 12 * 3600 * 1000
local LANE_VERSION, LANE_LENGTH, LANE_LAYOUT = 1, 42, '>BBc8I8c8I8I8'
local NOBODY, NEVER = '\0\0\0\0\0\0\0\0', '\0\0\0\0\0\0\0\0'
-- The first element of an answer; `reply.rs` has them too.
local DONE, NOT_OWNER, UNREADABLE, OURS, WAS_HANDLED, ID_REUSED, ELSEWHERE = 0, 1, 2, 3, 4, 5, 6
local BEHIND, LANE_LOST = 7, 8
