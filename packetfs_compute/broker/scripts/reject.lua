-- Set a message aside that is no job, and have whoever asks for its result learn of it: all of it or nothing.
--
-- KEYS[1] the instance's list    KEYS[2] what is set aside    KEYS[3] what was asked under its id    KEYS[4] how that ended
-- ARGV[1] the message    ARGV[2] the entry    ARGV[3] how many entries are kept
-- ARGV[4] how it ended as JSON, '' where it has no id that can be used    ARGV[5] seconds to keep that
-- Returns 1 where the message was still there.
--
-- Under an id that stands for a job, nothing is said: that would be said of the job.
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then
  return 0
end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[3]) - 1)
if ARGV[4] ~= '' and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('SET', KEYS[4], ARGV[4], 'EX', ARGV[5])
end
return 1
