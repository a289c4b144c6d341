-- Read the entries that are due, the longest overdue first, with all that is known of them.
--
-- KEYS[1] open    KEYS[2] jobs    KEYS[3] runs    KEYS[4] leases
-- ARGV[1] how many at most    ARGV[2] after how many bytes of messages to stop    ARGV[3] now, or '' for the server's clock
-- Returns now, then for each: id, due, message, runs, lease.
local now = ARGV[3]
if now == '' then
  local time = redis.call('TIME')
  now = string.format('%s.%06d', time[1], tonumber(time[2]))
end
local found = {now}
local bytes = 0
local due = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
for i = 1, #due, 2 do
  local id = due[i]
  local message = redis.call('HGET', KEYS[2], id)
  bytes = bytes + #(message or '')
  if i > 1 and bytes > tonumber(ARGV[2]) then
    break
  end
  for _, value in ipairs({id, due[i + 1], message, redis.call('HGET', KEYS[3], id), redis.call('ZSCORE', KEYS[4], id)}) do
    found[#found + 1] = value
  end
end
return found
