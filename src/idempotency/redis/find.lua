-- ARGV: cursor, pattern of the records' keys, token.
-- Returns the key of the record with this token, or the cursor to go on with, which is 0 at the end. On one server only:
-- in a cluster a script may not read keys of several slots.
local FOUND = 9
local page = redis.pcall('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 1000)
if page.err then return page end
for _, key in ipairs(page[2]) do
  local raw = redis.pcall('GET', key)
  if type(raw) == 'string' and #raw == LENGTH and string.sub(raw, 21, 28) == ARGV[3] then return { FOUND, key } end
end
return { DONE, page[1] }
