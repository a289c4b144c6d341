-- Return an object's size and the values of one range, or nothing where one of them is not known.
--
-- KEYS[1] what is known of the object
-- ARGV[1] the range's offset    ARGV[2] its length, empty for the rest of the object    then the operations
local size = redis.call('HGET', KEYS[1], 'size')
if not size then
  return {}
end
local length = ARGV[2]
if length == '' then
  length = string.format('%.0f', tonumber(size) - tonumber(ARGV[1]))
end
local found = {size}
for i = 3, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[1] .. ':' .. length .. ':' .. ARGV[i])
  if not value then
    return {}
  end
  found[#found + 1] = value
end
return found
