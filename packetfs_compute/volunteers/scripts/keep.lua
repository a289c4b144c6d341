-- Keep a result for a second look; the oldest of too many go.
--
-- KEYS[1] the account's results    ARGV[1] the result    ARGV[2] how many to keep    ARGV[3] for how many seconds
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
