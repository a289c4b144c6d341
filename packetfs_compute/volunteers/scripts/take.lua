-- Return an account's results, the oldest first, and forget them.
--
-- KEYS[1] the account's results
local taken = {}
while true do
  local result = redis.call('RPOP', KEYS[1])
  if not result then
    return taken
  end
  taken[#taken + 1] = result
end
