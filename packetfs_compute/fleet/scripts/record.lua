-- An attempt has ended: give its slot back, and learn from it (routing/health.py, recorded).
--
-- KEYS[2] the substrate's leases    KEYS[3] the ledger's leases
-- ARGV[3] job id  [4] ok  [5] the substrate's fault  [6] bytes  [7] seconds  [8] surprise_s  [9] cost_usd
-- ARGV[10] retry_after_s  [11] wants a retry
-- ARGV[12] is there where nobody wants to know what became of it: the reply is long
-- Returns the health's fields and values, then 1 where the retry is within the budget.
redis.call('ZREM', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[3])
local ok, fault, wants = ARGV[4] == '1', ARGV[5] == '1', ARGV[11] == '1'
local x, y, retry_after = tonumber(ARGV[6]) / 1e6, tonumber(ARGV[7]), tonumber(ARGV[10])
local h = load()
fade(h)
h.budget = math.min(100, h.budget + 0.2)
local granted = wants and h.budget >= 1
if granted then
  h.budget = h.budget - 1
end
if ok then
  h.weight, h.sum_x, h.sum_y = h.weight + 1, h.sum_x + x, h.sum_y + y
  h.sum_xx, h.sum_xy = h.sum_xx + x * x, h.sum_xy + x * y
end
h.surprise_s = math.max(h.surprise_s, tonumber(ARGV[8]), fault and 5 or 0)
if ok or fault then
  h.calls = h.calls + 1
end
if fault then
  h.failures, h.streak = h.failures + 1, h.streak + 1
elseif ok then
  h.streak = 0
end
if retry_after > 0 then
  h.busy_until = math.max(h.busy_until, now + math.min(300, retry_after))
end
h.attempts, h.byte_count, h.cost_usd = h.attempts + 1, h.byte_count + tonumber(ARGV[6]), h.cost_usd + tonumber(ARGV[9])
if ok then
  turn(h, 'success')
elseif fault then
  local ratio = h.calls > 0 and 1 - h.failures / h.calls or 1
  local beyond = h.streak >= 5 or (h.calls >= 5 and ratio < 0.8)
  turn(h, beyond and 'too_many' or 'failure')
end
local reply = save(h)
if ARGV[12] then
  return 0
end
reply[#reply + 1] = granted and 1 or 0
return reply
