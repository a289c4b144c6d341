-- Whether a job was cancelled: its result says so, and would stand (broker/scripts/store.lua). What is no state of a job that
-- was revoked is not read, however long it is.
local function cancelled(result, open, job_id)
  return redis.call('GETRANGE', result, 0, 19) == '{"status": "REVOKED"'
    and (not redis.call('ZSCORE', open, job_id)
      or string.find(redis.call('GET', result), '"packetfs_cancelled": true', 1, true) ~= nil)
end
