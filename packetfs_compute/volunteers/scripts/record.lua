-- Learn how an answer fared: the twin of trust.recorded.
--
-- KEYS[1] the account    ARGV[1] event    ARGV[2] bytes    ARGV[3] now
-- Returns the account's fields and values.
local key, event = KEYS[1], ARGV[1]
if event == 'wrong' then
  if not redis.call('HGET', key, 'banned_at') then
    redis.call('HSET', key, 'banned_at', ARGV[3])
  end
elseif event == 'unclear' then
  redis.call('HSET', key, 'checked', 0, 'agreed', 0)
  redis.call('HINCRBY', key, 'unclear', 1)
elseif event == 'failed' then
  redis.call('HINCRBY', key, 'failures', 1)
  redis.call('HSET', key, 'failed_at', ARGV[3])
else
  redis.call('HSET', key, 'failures', 0)
  redis.call('HINCRBY', key, 'verified_bytes', ARGV[2])
  redis.call('HINCRBY', key, event == 'confirmed' and 'checked' or 'agreed', 1)
end
return redis.call('HGETALL', key)
