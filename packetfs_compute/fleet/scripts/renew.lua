-- Keep running attempts' leases alive, each only while it is there; the ledger's by this server's clock (begin.lua). Tell
-- which of them nobody wants any more.
--
-- KEYS[1] the ledger's leases    KEYS[2] open    KEYS[3, 5, …] each attempt's substrate's leases    KEYS[4, 6, …] its job's
-- result
-- ARGV[1] now    ARGV[2] seconds that a lease lives    ARGV[3…] each attempt's job id
-- Returns the ids of those that were cancelled.
local time = redis.call('TIME')
local mine = string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[2])
local unwanted = {}
for i = 3, #ARGV do
  local leases, result = KEYS[2 * i - 3], KEYS[2 * i - 2]
  redis.call('ZADD', leases, 'XX', ARGV[1] + ARGV[2], ARGV[i])
  redis.call('ZADD', KEYS[1], 'XX', mine, ARGV[i])
  if cancelled(result, KEYS[2], ARGV[i]) then
    unwanted[#unwanted + 1] = ARGV[i]
  end
end
return unwanted
