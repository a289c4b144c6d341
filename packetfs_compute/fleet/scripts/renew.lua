-- Keep running attempts' leases alive, each only while it is there; the ledger's by this server's clock (begin.lua).
--
-- KEYS[1] the ledger's leases    KEYS[2…] each attempt's substrate's leases
-- ARGV[1] now    ARGV[2] seconds that a lease lives    ARGV[3…] each attempt's job id
local time = redis.call('TIME')
local mine = string.format('%.6f', time[1] + time[2] / 1e6 + ARGV[2])
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', ARGV[1] + ARGV[2], ARGV[i + 1])
  redis.call('ZADD', KEYS[1], 'XX', mine, ARGV[i + 1])
end
