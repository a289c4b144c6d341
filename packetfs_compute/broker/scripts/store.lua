-- Store a task's state unless a result stands there already, and strike the job out of the ledger: one round trip.
--
-- KEYS[1] the result    KEYS[2] open    KEYS[3] jobs    KEYS[4] runs    KEYS[5] leases
-- KEYS[6] what was asked    KEYS[7] how it ended, for clients
-- ARGV[1] job id    ARGV[2] the state as JSON    ARGV[3] seconds to keep it, 0 for ever
-- ARGV[4] 1 where even a failure stands once its job is struck out    ARGV[5] 1 to strike the job out
-- ARGV[6] how it ended as JSON, less what was asked and the last brace; '' for a job that nobody asked of the desk
-- ARGV[7] the channel of whoever published it, '-' where he has none, '' where his message says so, if the ledger has it
-- Returns 1 where it was stored, 0 where what was there stands.
--
-- Celery writes "status" first in a state (celery/backends/base.py, _get_result_meta); a pattern bound to the beginning
-- costs the same however long the result is.
--
-- What was cancelled stands whatever is open: an attempt that was under way may have had its job published again.
local current = redis.call('GET', KEYS[1])
local status = current and string.match(current, '^{"status": "(%u+)"')
local cancelled = status == 'REVOKED' and string.find(current, '"packetfs_cancelled": true', 1, true)
local stands = status == 'SUCCESS' or cancelled
if not stands and ARGV[4] == '1' and (status == 'FAILURE' or status == 'REVOKED') then
  stands = not redis.call('ZSCORE', KEYS[2], ARGV[1])
end
if not stands then
  local function keep(key, value)
    if ARGV[3] == '0' then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'EX', ARGV[3])
    end
  end
  keep(KEYS[1], ARGV[2])
  redis.call('PUBLISH', KEYS[1], ARGV[2])
  local channel = ARGV[7]
  if channel == '' then
    local record = redis.call('HGET', KEYS[3], ARGV[1])
    local name = record and string.match(record, '"reply_to": "(packetfs%-reply%-[%x%-]+)"')
    channel = name and 'celery-task-meta-' .. name or '-'
  end
  if channel ~= '-' then
    redis.call('PUBLISH', channel, ARGV[2])
  end
  if ARGV[6] ~= '' then
    local known = redis.call('GET', KEYS[6])
    local asked = known and string.match(known, '^{"fingerprint": "%x+", (.*)}$')
    if asked then
      keep(KEYS[6], known)
    end
    keep(KEYS[7], ARGV[6] .. ', ' .. (asked or '"submitted_at": null, "program": null, "policy": null') .. '}')
  end
end
if ARGV[5] == '1' or cancelled then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('HDEL', KEYS[4], ARGV[1])
  redis.call('ZREM', KEYS[5], ARGV[1])
end
return stands and 0 or 1
