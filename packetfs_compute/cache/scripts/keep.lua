-- Keep values of one version of an object, and let the objects go that were written to longest ago, where there are too many.
--
-- KEYS[1] what is known of the object    KEYS[2] all objects by when they were written to    KEYS[3] how many values each has
-- ARGV[1] the object's name    ARGV[2] what the key of one begins with    ARGV[3] the object's size
-- ARGV[4] for how many seconds it is kept    ARGV[5] the most values there may be    ARGV[6] whether new values replace old ones
-- then values, each after its name
local object, most, ttl = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(string.format('%s.%06d', time[1], time[2]))

local function forget(name)
  local count = tonumber(redis.call('HGET', KEYS[3], name)) or 0
  redis.call('DEL', ARGV[2] .. name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
  redis.call('HINCRBY', KEYS[3], 'all', -count)
end

-- One version has one size: where that is not so, the ETag was none. What Redis has dropped is no longer to be counted.
if redis.call('HGET', KEYS[1], 'size') ~= ARGV[3] then
  forget(object)
end
local count = tonumber(redis.call('HGET', KEYS[3], object)) or 0
local added = 0
for i = 7, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if known and ARGV[6] == '1' then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  elseif not known and count + added < math.max(1, most / 2) then
    added = added + redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[1], 'size', ARGV[3])
redis.call('ZADD', KEYS[2], now, object)
redis.call('HINCRBY', KEYS[3], object, added)
local all = redis.call('HINCRBY', KEYS[3], 'all', added)
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ttl)
end

-- A bound on how much one call does: a setting that was lowered is reached by and by.
for _ = 1, 100 do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if oldest[1] == object or (all <= most and tonumber(oldest[2]) > now - ttl) then
    break
  end
  forget(oldest[1])
  all = tonumber(redis.call('HGET', KEYS[3], 'all'))
end
return all
