-- Say of jobs that their attempts run; one that is finished gets no lease.
--
-- KEYS[1] open    KEYS[2] leases    ARGV[1] for how many seconds    ARGV[2…] job ids
-- Returns how many are open.
local time = redis.call('TIME')
local expiry = string.format('%.6f', time[1] + time[2] / 1e6 + tonumber(ARGV[1]))
local open = 0
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[2], expiry, ARGV[i])
    open = open + 1
  end
end
return open
