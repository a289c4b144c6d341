-- Look at entries again later, unless another sweeper, a publisher or a result was here meanwhile.
--
-- KEYS[1] open    KEYS[2] leases
-- ARGV: for each entry its id, the due time that was seen, the new one, and 1 where it is presumed to run until then
-- Returns how many entries were moved.
local moved = 0
for i = 1, #ARGV, 4 do
  local id = ARGV[i]
  if tonumber(redis.call('ZSCORE', KEYS[1], id) or '') == tonumber(ARGV[i + 1]) then
    redis.call('ZADD', KEYS[1], ARGV[i + 2], id)
    if ARGV[i + 3] == '1' then
      redis.call('ZADD', KEYS[2], 'NX', ARGV[i + 2], id)
    end
    moved = moved + 1
  end
end
return moved
