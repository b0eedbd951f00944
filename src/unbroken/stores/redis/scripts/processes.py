"""Scripts of processes and readers: heartbeats, adoption, hand-over, locks."""

from unbroken.stores.redis.scripts.lua import script

# KEYS procs; ARGV process now seconds
BEAT = script(
    """
local now, last = clock(ARGV[2]), redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], exact(now + tonumber(ARGV[3])))
return {'ok', last and (tonumber(last) > now and 'fresh' or 'lapsed') or 'new'}
"""
)

# KEYS stops; ARGV process
STOPS = script(
    """
local found, all = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i + 1] == ARGV[1] then found[#found + 1] = all[i] end
end
return {'ok', found}
"""
)

# KEYS h
FENCE = script(
    """
return {'ok', redis.call('HGET', KEYS[1], 'fence') or ''}
"""
)

# KEYS procs; ARGV now
PROCESSES = script(
    """
return {'ok', exact(clock(ARGV[1])), redis.call('HGETALL', KEYS[1])}
"""
)

# KEYS procs; ARGV (process, the end of its heartbeat or '' for any)...
RETIRE = script(
    """
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' or redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return {'ok'}
"""
)

# KEYS open; ARGV limit (lowest, highest)...
RANGES = script(
    """
local found = {}
for i = 2, #ARGV, 2 do
  found[#found + 1] = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[i + 1], ARGV[i],
    'WITHSCORES', 'LIMIT', 0, ARGV[1])
end
return {'ok', found}
"""
)

# KEYS open stops h...; ARGV process producer (id, its score in open)...
ADOPT = script(
    """
local leases = {}
for i = 3, #KEYS do
  local id, score, h = ARGV[2 * i - 3], tonumber(ARGV[2 * i - 2]), KEYS[i]
  local f = redis.call('HMGET', h, 'tail', 'fence', 'cancelled')
  leases[i - 2] = {'', 0, 0, 0}
  local found = redis.call('ZSCORE', KEYS[1], id)
  if f[1] and found and tonumber(found) == score then
    local fence = int(math.max(tonumber(f[2]) + 1, math.floor(server_time() / 1000)))
    redis.call('HSET', h, 'fence', fence, 'producer', ARGV[2], 'process', ARGV[1])
    if score > 0 then redis.call('HINCRBY', h, 'takeovers', 1) end
    redis.call('ZADD', KEYS[1], ARGV[1], id)
    if f[3] then redis.call('HSET', KEYS[2], id, ARGV[1]) end
    leases[i - 2] = {fence, f[1], f[3] and 1 or 0, redis.call('HGET', h, 'takeovers') or '0'}
  end
end
return {'ok', leases}
"""
)

# KEYS open stops h...; ARGV process now id...
RELEASE = script(
    """
local count, since = 0, exact(-clock(ARGV[2]))
for i = 3, #KEYS do
  local id, h = ARGV[i], KEYS[i]
  local found = redis.call('ZSCORE', KEYS[1], id)
  if found and tonumber(found) == tonumber(ARGV[1]) then
    local fence = tonumber(redis.call('HGET', h, 'fence'))
    redis.call('HSET', h, 'fence', int(fence + 1), 'producer', '', 'process', '0')
    redis.call('ZADD', KEYS[1], since, id)
    redis.call('HDEL', KEYS[2], id)
    count = count + 1
  end
end
return {'ok', count}
"""
)

# KEYS lock; ARGV process now seconds
LOCK = script(
    """
local f, now = redis.call('HMGET', KEYS[1], 'holder', 'until'), clock(ARGV[2])
if f[1] and f[1] ~= ARGV[1] and tonumber(f[2]) > now then return {'ok', 0} end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', exact(now + tonumber(ARGV[3])))
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])) + 60)
return {'ok', 1}
"""
)

# KEYS h...; ARGV now seconds (none: only ask)
ATTEND = script(
    """
local now, left = clock(ARGV[1]), {}
for i, h in ipairs(KEYS) do
  local f = redis.call('HMGET', h, 'tail', 'attended')
  local until_ = tonumber(f[2] or '0')
  if f[1] and ARGV[2] ~= '' then
    until_ = math.max(until_, now + tonumber(ARGV[2]))
    redis.call('HSET', h, 'attended', exact(until_))
  end
  left[i] = exact(math.max(until_ - now, 0))
end
return {'ok', left}
"""
)
