-- An active probe has ended (routing/health.py, probed).
--
-- ARGV[3] 1 where the place answered, else 0
-- Returns the health's fields and values.
local ok = ARGV[3] == '1'
local h = load()
h.probe_streak = ok and math.max(h.probe_streak, 0) + 1 or math.min(h.probe_streak, 0) - 1
h.probed_at = now
if h.probe_streak == 2 then
  turn(h, 'risen')
elseif h.probe_streak <= -3 then
  turn(h, 'fallen')
end
return save(h)
