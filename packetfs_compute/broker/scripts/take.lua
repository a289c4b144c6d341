-- Take messages from the intake's queue into an instance's own list, and return all that is there, the oldest first.
--
-- What was taken before and not finished with comes first: an answer that was lost on its way loses no message.
-- KEYS[1] the queue    KEYS[2] the instance's list    KEYS[3] what is set aside
-- ARGV[1] how many at most    ARGV[2] after how many bytes to stop    ARGV[3] the longest message
-- ARGV[4] how many that are set aside are kept
--
-- A longer message is set aside here: nobody reads it. Of its bytes those are kept that are printable ASCII.
local limit = tonumber(ARGV[3])
local found, bytes = {}, 0

local function look(message)
  if #message <= limit then
    found[#found + 1] = message
    bytes = bytes + #message
    return
  end
  local time = redis.call('TIME')
  local entry = cjson.encode({
    message = (string.gsub(string.sub(message, 1, 16384), '[^ -~]', '?')),
    reason = 'it has ' .. #message .. ' bytes; at most ' .. ARGV[3] .. ' are taken',
    bytes = #message,
    at = tonumber(time[1]),
  })
  redis.call('LREM', KEYS[2], -1, message)
  redis.call('LPUSH', KEYS[3], entry)
  redis.call('LTRIM', KEYS[3], 0, tonumber(ARGV[4]) - 1)
end

local left = redis.call('LRANGE', KEYS[2], 0, -1)
for i = #left, 1, -1 do
  look(left[i])
end
while #found < tonumber(ARGV[1]) and bytes < tonumber(ARGV[2]) do
  local message = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
  if not message then
    break
  end
  look(message)
end
return found
