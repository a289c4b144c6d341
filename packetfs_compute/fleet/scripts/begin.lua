-- Take a slot of a substrate for a job; a lease that was not renewed in time is nobody's.
--
-- The ledger's lease is by this server's clock, which the sweeper goes by: were it a worker's that is behind, its running
-- jobs would look abandoned.
-- KEYS[1] the substrate's leases    KEYS[2] the ledger's leases    KEYS[3] the job's result    KEYS[4] open
-- ARGV[1] now    ARGV[2] seconds that a lease lives    ARGV[3] job id    ARGV[4] slots, 0 for any number
-- Returns 1 where the job has its slot, 0 where all are taken, -1 where it was cancelled.
local ttl, slots = tonumber(ARGV[2]), tonumber(ARGV[4])
if cancelled(KEYS[3], KEYS[4], ARGV[3]) then
  return -1
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if slots > 0 and not redis.call('ZSCORE', KEYS[1], ARGV[3]) and redis.call('ZCARD', KEYS[1]) >= slots then
  return 0
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], ARGV[1] + ttl, ARGV[3])
redis.call('ZADD', KEYS[2], string.format('%.6f', time[1] + time[2] / 1e6 + ttl), ARGV[3])
return 1
