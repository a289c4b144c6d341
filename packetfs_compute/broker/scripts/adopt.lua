-- Put back what an instance of the intake had taken and not finished with, unless it lives.
--
-- KEYS[1] its sign of life    KEYS[2] its list    KEYS[3] the queue    KEYS[4] instances
-- ARGV[1] its name    ARGV[2] how many at most
-- Returns how many were put back, at the queue's end that is served first; -1 where it lives.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return -1
end
local moved = 0
while moved < tonumber(ARGV[2]) and redis.call('LMOVE', KEYS[2], KEYS[3], 'LEFT', 'RIGHT') do
  moved = moved + 1
end
if redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('SREM', KEYS[4], ARGV[1])
end
return moved
