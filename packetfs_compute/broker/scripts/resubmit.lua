-- Publish a job's message again, unless it is finished or was published again meanwhile.
--
-- KEYS[1] open    KEYS[2] jobs    KEYS[3] runs    KEYS[4] leases    KEYS[5] the count of resubmissions
-- KEYS[6] the list, or ''    KEYS[7] kombu's unacknowledged messages    KEYS[8] their index
-- ARGV[1] job id    ARGV[2] the due time that was seen    ARGV[3] the new one    ARGV[4] the message less its last brace
-- ARGV[5] the delivery tag of the message before, which a worker that is gone may hold: nobody shall restore it as well
-- Returns 1 where it was published.
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '') ~= tonumber(ARGV[2]) then
  return 0
end
local time = redis.call('TIME')
local message = ARGV[4] .. ', "packetfs_published": ' .. string.format('%s.%06d', time[1], tonumber(time[2])) .. '}'
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], KEYS[6] .. '\n' .. message)
redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('INCR', KEYS[5])
if KEYS[6] ~= '' then
  redis.call('HDEL', KEYS[7], ARGV[5])
  redis.call('ZREM', KEYS[8], ARGV[5])
  redis.call('LPUSH', KEYS[6], message)
end
return 1
