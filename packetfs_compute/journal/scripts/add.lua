-- Add what one process has counted since it last told. It is dated by the server's clock, so that hosts whose clocks differ
-- agree, and a step whose time is over never changes again: who has read it need not read it twice.
--
-- KEYS[1] what a step's key begins with    KEYS[2] the same of an hour's
-- KEYS[3] jobs that were done    KEYS[4] jobs that failed    KEYS[5] what opened breakers
-- ARGV[1] seconds of a step    ARGV[2] for how many seconds one is kept    ARGV[3] and an hour
-- ARGV[4] how many jobs of each kind are kept    ARGV[5] for how many seconds they and KEYS[5] are
-- then, each with their number before them: counts (field, amount), done jobs and failed jobs (JSON, the oldest first),
-- openings (substrate, JSON)
local now = tonumber(redis.call('TIME')[1])
local step = string.format('%s%d', KEYS[1], math.floor(now / tonumber(ARGV[1])))
local hour = string.format('%s%d', KEYS[2], math.floor(now / 3600))
local at = 6

local function each(width, act)
  local count = tonumber(ARGV[at])
  for i = at + 1, at + count * width, width do
    act(ARGV[i], ARGV[i + 1])
  end
  at = at + 1 + count * width
  return count
end

local counted = each(2, function(field, amount)
  redis.call('HINCRBY', step, field, amount)
  if string.sub(field, 1, 5) ~= 'took|' then
    redis.call('HINCRBY', hour, field, amount)
  end
end)
if counted > 0 then
  redis.call('EXPIRE', step, ARGV[2])
  redis.call('EXPIRE', hour, ARGV[3])
end
for _, list in ipairs({KEYS[3], KEYS[4]}) do
  if each(1, function(job) redis.call('LPUSH', list, job) end) > 0 then
    redis.call('LTRIM', list, 0, ARGV[4] - 1)
    redis.call('EXPIRE', list, ARGV[5])
  end
end
if each(2, function(substrate, cause) redis.call('HSET', KEYS[5], substrate, cause) end) > 0 then
  redis.call('EXPIRE', KEYS[5], ARGV[5])
end
