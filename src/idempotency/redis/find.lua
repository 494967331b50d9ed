-- ARGV: cursor, pattern of the records' keys, token, keys of a page.
-- Returns the key of the record with this token, or the cursor to go on with, which is 0 at the end.
local FOUND = 9
local page = redis.pcall('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[4])
if page.err then return page end
for _, key in ipairs(page[2]) do
  local raw = redis.pcall('GET', key)
  if type(raw) == 'string' and #raw == LENGTH and string.sub(raw, 21, 28) == ARGV[3] then return { FOUND, key } end
end
return { DONE, page[1] }
