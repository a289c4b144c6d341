-- Enter a job in the ledger, then put its message on its queue's list: one round trip, and both happen or neither.
--
-- The message is stamped here, by the server's clock, so that two publishers whose clocks differ still stamp in order.
-- KEYS[1] open    KEYS[2] jobs    KEYS[3] the list, or '' where the message takes another way
-- ARGV[1] job id    ARGV[2] the message as JSON, less its last brace
-- ARGV[3] after how many seconds the sweeper looks at it    ARGV[4] the time before which it is not to run, or ''
local time = redis.call('TIME')
local stamp = string.format('%s.%06d', time[1], tonumber(time[2]))
local message = ARGV[2] .. ', "packetfs_published": ' .. stamp .. '}'
local due = math.max(tonumber(stamp), tonumber(ARGV[4]) or 0) + tonumber(ARGV[3])
redis.call('ZADD', KEYS[1], due, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], KEYS[3] .. '\n' .. message)
if KEYS[3] ~= '' then
  redis.call('LPUSH', KEYS[3], message)
end
return stamp
