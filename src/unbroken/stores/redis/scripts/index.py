"""Scripts of lists, keys, counters, and the conversion of older data."""

from unbroken.stores.redis.scripts.lua import script

# KEYS set; ARGV max limit
LIST = script(
    """
return {'ok', redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[2])}
"""
)

# KEYS closed sum; ARGV now age ('' for none) limit
OLD = script(
    """
local size = redis.call('HGET', KEYS[2], 'size') or '0'
if ARGV[2] == '' then
  return {'ok', size, redis.call('ZRANGE', KEYS[1], 0, ARGV[3] - 1, 'WITHSCORES')}
end
local since = exact(clock(ARGV[1]) - tonumber(ARGV[2]))
return {'ok', size, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', since, 'WITHSCORES',
  'LIMIT', 0, ARGV[3])}
"""
)

# KEYS claim; ARGV id seconds (0: for ever)
CLAIM = script(
    """
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1]) end
if ARGV[2] ~= '0' and (not held or redis.call('TTL', KEYS[1]) >= 0) then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {'ok', held or ARGV[1]}
"""
)

# KEYS claim; ARGV id
UNCLAIM = script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'ok'}
"""
)

# KEYS paid counters...; ARGV late ('late': the time is that of an end before) now seconds charges
# The same payment comes twice when its answer was lost, or two processes settle one end.
CHARGE = script(
    """
if redis.call('EXISTS', KEYS[1]) == 1 then return {'ok'} end
local refused = charge(ARGV[4], 2, clock(ARGV[2]), ARGV[1] == 'late')
if refused then return refused end
redis.call('SET', KEYS[1], '', 'EX', ARGV[3])
return {'ok'}
"""
)

# KEYS counter; ARGV now seconds
USAGE = script(
    """
local seconds = tonumber(ARGV[2])
local until_ = int((math.floor(clock(ARGV[1]) / seconds) + 1) * seconds)
if redis.call('HGET', KEYS[1], 'until') ~= until_ then return {'ok', {}} end
return {'ok', redis.call('HGETALL', KEYS[1])}
"""
)

# KEYS due
DUE = script(
    """
return {'ok', redis.call('HGETALL', KEYS[1])}
"""
)

# KEYS due; ARGV id
SETTLED = script(
    """
redis.call('HDEL', KEYS[1], ARGV[1])
return {'ok'}
"""
)

# KEYS name; ARGV value
AGREE = script(
    """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return {'ok', redis.call('GET', KEYS[1])}
"""
)

# KEYS name
GET = script(
    """
return {'ok', redis.call('GET', KEYS[1])}
"""
)

# KEYS name; ARGV value
PUT = script(
    """
redis.call('SET', KEYS[1], ARGV[1])
return {'ok'}
"""
)

# KEYS h open; ARGV id. What was written before there were heartbeats: leases of streams.
CONVERT = script(
    """
local f = redis.call('HMGET', KEYS[1], 'expires', 'producer', 'state')
if not f[1] then return {'ok'} end
redis.call('HDEL', KEYS[1], 'expires')
if f[3] then return {'ok'} end
redis.call('HSET', KEYS[1], 'producer', '', 'process', '0')
if f[2] == 'keys' or redis.call('HGET', KEYS[1], 'fence') == '0' then
  redis.call('HSET', KEYS[1], 'fence', '0')
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], exact(-math.max(tonumber(f[1]), 1)), ARGV[1])
end
return {'ok'}
"""
)
