-- Claim a job's id for what is asked under it, and tell what is known of the id: one step, so that of two submitters one is
-- first, and both learn the same.
--
-- KEYS[1] known    KEYS[2] how it ended, for clients    KEYS[3] the result    KEYS[4] open    KEYS[5] leases
-- ARGV[1] job id    ARGV[2] what is asked, as JSON that begins with its fingerprint    ARGV[3] seconds to keep it
-- Returns whether to publish it, known, the result, when it is looked at next, its lease, and now.
--
-- A job that is known, has no result and is not open was never published (whoever claimed it died), or is forgotten:
-- publishing it is right in either case. A job that is open or ended and not known was submitted otherwise.
local time = redis.call('TIME')
local now = string.format('%s.%06d', time[1], tonumber(time[2]))
local known = redis.call('GET', KEYS[1])
local result = redis.call('GET', KEYS[3])
local open = redis.call('ZSCORE', KEYS[4], ARGV[1])
local publish = 0
if not result and not open then
  local fingerprint = '^{"fingerprint": "(%x+)"'
  if not known or string.match(known, fingerprint) == string.match(ARGV[2], fingerprint) then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
    redis.call('DEL', KEYS[2])
    known = ARGV[2]
    publish = 1
  end
end
return {publish, known, result, open, redis.call('ZSCORE', KEYS[5], ARGV[1]), now}
