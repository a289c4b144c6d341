-- Store a task's state unless a result stands there already, and strike the job out of the ledger: one round trip.
--
-- KEYS[1] the result    KEYS[2] open    KEYS[3] jobs    KEYS[4] runs    KEYS[5] leases
-- ARGV[1] job id    ARGV[2] the state as JSON    ARGV[3] seconds to keep it, 0 for ever
-- ARGV[4] 1 where even a failure stands once its job is struck out    ARGV[5] 1 to strike the job out
-- Returns 1 where it was stored, 0 where what was there stands.
--
-- Celery writes "status" first in a state (celery/backends/base.py, _get_result_meta); a pattern bound to the beginning
-- costs the same however long the result is.
local current = redis.call('GET', KEYS[1])
local status = current and string.match(current, '^{"status": "(%u+)"')
local stands = status == 'SUCCESS'
if ARGV[4] == '1' and (status == 'FAILURE' or status == 'REVOKED') then
  stands = not redis.call('ZSCORE', KEYS[2], ARGV[1])
end
if not stands then
  if ARGV[3] == '0' then
    redis.call('SET', KEYS[1], ARGV[2])
  else
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
  end
  redis.call('PUBLISH', KEYS[1], ARGV[2])
end
if ARGV[5] == '1' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('HDEL', KEYS[4], ARGV[1])
  redis.call('ZREM', KEYS[5], ARGV[1])
end
return stands and 0 or 1
