-- Enter jobs in the ledger, then put their messages on their queue's list: all of them in one step, or none.
--
-- KEYS[1] open    KEYS[2] jobs    KEYS[3] the list
-- ARGV[1] after how many seconds the sweeper looks at them
-- ARGV[2] the message of them all as JSON, less its last brace; with {1} for a job's first part, {2} for its second …
-- ARGV[3] each job's parts, the first of which is its id, each with a line break after it    ARGV[4] how many a job has
-- Returns how many were published.
--
-- A job that is open already is passed over: whoever has lost the answer to this may ask again.
local time = redis.call('TIME')
local stamp = string.format('%s.%06d', time[1], tonumber(time[2]))
local due = string.format('%.6f', tonumber(stamp) + tonumber(ARGV[1]))
local pieces, slots = {}, {}
for literal, slot in string.gmatch(ARGV[2] .. ', "packetfs_published": ' .. stamp .. '}{0}', '(.-){(%d)}') do
  pieces[#pieces + 1] = literal
  slots[#slots + 1] = tonumber(slot)
  pieces[#pieces + 1] = ''
end
local head = KEYS[3] .. '\n'
local dues, records, messages, parts = {}, {}, {}, {}
local many = tonumber(ARGV[4])
for part in string.gmatch(ARGV[3], '([^\n]*)\n') do
  parts[#parts + 1] = part
  if #parts == many then
    if not redis.call('ZSCORE', KEYS[1], parts[1]) then
      for i = 1, #slots - 1 do
        pieces[2 * i] = parts[slots[i]]
      end
      local n, message = #messages, table.concat(pieces)
      messages[n + 1] = message
      dues[2 * n + 1], dues[2 * n + 2] = due, parts[1]
      records[2 * n + 1], records[2 * n + 2] = parts[1], head .. message
    end
    parts = {}
  end
end
if #messages > 0 then
  redis.call('ZADD', KEYS[1], unpack(dues))
  redis.call('HSET', KEYS[2], unpack(records))
  redis.call('LPUSH', KEYS[3], unpack(messages))
end
return #messages
