-- One substrate's health: what every script of the fleet begins with.
--
-- The arithmetic is that of packetfs_compute/routing/health.py and breaker.py, whose comments say why; a test runs both
-- over the same random histories and wants the same health. It stands here once more because recording an attempt must
-- be one round trip, and atomic: two workers that read, compute and write would lose each other's attempts.
--
-- KEYS[1] the health's hash    ARGV[1] now, Unix seconds    ARGV[2] jitter of the breaker's time
local now, jitter = tonumber(ARGV[1]), tonumber(ARGV[2])

local NUMBERS = {'at', 'weight', 'sum_x', 'sum_y', 'sum_xx', 'sum_xy', 'surprise_s', 'calls', 'failures', 'streak', 'budget',
                 'busy_until', 'breaker_since', 'breaker_until', 'breaker_times', 'breaker_trials', 'probe_streak',
                 'probed_at', 'attempts', 'byte_count', 'cost_usd', 'opened'}

local function load()
  local h = {state = redis.call('HGET', KEYS[1], 'breaker_state') or 'closed'}
  local values = redis.call('HMGET', KEYS[1], unpack(NUMBERS))
  for i, name in ipairs(NUMBERS) do
    h[name] = tonumber(values[i] or (name == 'budget' and 100 or 0))
  end
  return h
end

local function save(h)
  local fields = {'breaker_state', h.state}
  for _, name in ipairs(NUMBERS) do
    fields[#fields + 1] = name
    fields[#fields + 1] = string.format('%.17g', h[name])
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  return fields
end

local function fade(h)
  local passed = math.max(0, now - h.at)
  local learn, outcome = math.exp(-passed / 300), math.exp(-passed / 30)
  h.at = math.max(now, h.at)
  for _, name in ipairs({'weight', 'sum_x', 'sum_y', 'sum_xx', 'sum_xy'}) do
    h[name] = h[name] * learn
  end
  h.surprise_s = h.surprise_s * math.exp(-passed / 10)
  h.calls, h.failures = h.calls * outcome, h.failures * outcome
  h.budget = math.min(100, h.budget + 10 * passed)
end

local MOVES = {
  closed = {success = 'stay', failure = 'stay', too_many = 'open', fallen = 'open', risen = 'stay'},
  open = {success = 'stay', failure = 'stay', too_many = 'stay', fallen = 'renew', risen = 'try'},
  half_open = {success = 'count', failure = 'reopen', too_many = 'reopen', fallen = 'reopen', risen = 'stay'},
}

local function open_s(times)
  return math.min(300, 5 * 2 ^ math.min(16, math.max(0, times - 1)))
end

local function breaker(h, state, since, till, times, trials)
  if state == 'closed' then
    h.calls, h.failures, h.surprise_s, h.streak = 0, 0, 0, 0
  end
  h.state, h.breaker_since, h.breaker_until, h.breaker_times, h.breaker_trials = state, since, till, times, trials
end

local function turn(h, event)
  local state = h.state
  if state == 'open' and now >= h.breaker_until then
    state = 'half_open'
  end
  local move = MOVES[state][event]
  if move == 'open' or move == 'reopen' then
    local calm = state == 'closed' and now - h.breaker_since > 300
    local times = calm and 1 or h.breaker_times + 1
    breaker(h, 'open', now, now + open_s(times) * jitter, times, 0)
    h.opened = h.opened + 1
  elseif move == 'renew' then
    breaker(h, 'open', h.breaker_since, now + open_s(h.breaker_times) * jitter, h.breaker_times, 0)
  elseif move == 'try' then
    breaker(h, 'half_open', now, 0, h.breaker_times, 0)
  elseif move == 'count' then
    local trials = (h.state == 'half_open' and h.breaker_trials or 0) + 1
    if trials >= 3 then
      breaker(h, 'closed', now, 0, h.breaker_times, 0)
    else
      breaker(h, 'half_open', h.state == 'open' and now or h.breaker_since, 0, h.breaker_times, trials)
    end
  end
end
