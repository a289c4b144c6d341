-- Learn that a browser could not read a source.
--
-- KEYS[1] the source's doubters, by when they doubted it last
-- ARGV[1] the browser's network    ARGV[2] now    ARGV[3] seconds that a doubt counts
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] - ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
