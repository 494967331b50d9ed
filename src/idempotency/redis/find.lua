-- ARGV: cursor, pattern of the records' keys, token, keys of a page.
-- Returns the key of the record with this token, or the cursor to go on with, which is 0 at the end; or that the user has
-- no permission for SCAN.
local FOUND, DENIED = 9, 11
local page = redis.pcall('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[4])
if page.err then
  -- Before version 7, Redis has no code for it in a script.
  local is_denied = string.find(page.err, 'NOPERM', 1, true) or string.find(page.err, 'user executing the script', 1, true)
  return is_denied and { DENIED } or page
end
for _, key in ipairs(page[2]) do
  local raw = redis.pcall('GET', key)
  if type(raw) == 'string' and #raw == LENGTH and string.sub(raw, 21, 28) == ARGV[3] then return { FOUND, key } end
end
return { DONE, page[1] }
