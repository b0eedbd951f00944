"""Scripts of one stream: its records, its end, its head."""

from unbroken.stores.redis.scripts.lua import script

# KEYS h m s open all owner sum gone claim (if it is in this shard) counters...
# ARGV id meta producer process now token claimed shard shards claims charges records...
# In the same step a claim that was made for a while becomes one for ever, or is given up with a
# refusal, so that a process that dies in between leaves no key without its stream.
CREATE = script(
    """
local h, m, claims = KEYS[1], KEYS[2], tonumber(ARGV[10])
local by, claim = redis.call('HGET', h, 'by'), claims == 1 and KEYS[9]
local ours = claim and redis.call('GET', claim) == ARGV[1]
if by then
  if ours then redis.call('PERSIST', claim) end
  return {by == ARGV[6] and 'ok' or 'there', known(h, m)}
end
if claim and not ours then return {'gone'} end
if ARGV[7] == '1' and redis.call('EXISTS', KEYS[8]) == 1 then return {'gone'} end
local now, producer, shards = clock(ARGV[5]), ARGV[3], tonumber(ARGV[9])
local refused = charge(ARGV[11], 9 + claims, now)
if refused then
  if ours then redis.call('DEL', claim) end
  return refused
end
if ours then redis.call('PERSIST', claim) end
local number = math.floor(server_time() / shards) * shards + tonumber(ARGV[8])
local last = tonumber(redis.call('HGET', KEYS[7], 'last') or '0')
if number <= last then number = last + shards end
local fence = producer ~= '' and '1' or '0'
local tail, size = add(KEYS[3], 0, fence, 12)
redis.call('HSET', h, 'tail', int(tail), 'size', int(size), 'fence', fence, 'process', ARGV[4],
  'created', exact(now), 'changed', exact(now), 'number', int(number), 'producer', producer,
  'ml', #ARGV[2], 'by', ARGV[6])
redis.call('SET', m, ARGV[2])
if producer ~= '' then redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1]) end
redis.call('ZADD', KEYS[5], int(number), ARGV[1])
redis.call('ZADD', KEYS[6], int(number), ARGV[1])
redis.call('HSET', KEYS[7], 'last', int(number))
redis.call('HINCRBY', KEYS[7], 'size', size)
return {'ok', known(h, m)}
"""
)

# KEYS h s sum; ARGV at fence token records...
# Answers most often, so with one number: twice the tail, and one more if it should stop.
APPEND = script(
    """
local f = head(KEYS[1])
if not f[1] then return {'missing'} end
if f[5] == ARGV[3] then return ack(f, f[1]) end
local refused = refusal(f, ARGV[1], ARGV[2])
if refused then return refused end
if #ARGV < 4 then return ack(f, f[1]) end
local tail = extend(KEYS[1], KEYS[2], KEYS[3], f, ARGV[3], 4)
publish(KEYS[1], f[1], tail, f[2], nil, '', 4)
return ack(f, tail)
"""
)

# KEYS h m s open closed sum stops due counters...
# ARGV id at fence token now state final charges due records...
CLOSE = script(
    """
local h, m, state, final = KEYS[1], KEYS[2], ARGV[6], ARGV[7]
local f = head(h)
if not f[1] then return {'missing'} end
if f[5] == ARGV[4] then return ack(f, f[1]) end
if f[3] == state and #ARGV < 10 then
  local before = tonumber(redis.call('HGET', h, 'ml'))
  if string.sub(redis.call('GET', m) or '', before + 1) == final then return ack(f, f[1]) end
end
local refused = refusal(f, ARGV[2], ARGV[3])
if refused then return refused end
local now = clock(ARGV[5])
charge(ARGV[8], 9, now)
if ARGV[9] ~= '' then redis.call('HSET', KEYS[8], ARGV[1], exact(now) .. ' ' .. ARGV[9]) end
local tail = extend(h, KEYS[3], KEYS[6], f, ARGV[4], 10)
redis.call('HSET', h, 'state', state, 'changed', exact(now))
if final ~= '' then redis.call('APPEND', m, final) end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[5], exact(now), ARGV[1])
redis.call('HDEL', KEYS[7], ARGV[1])
publish(h, f[1], tail, f[2], state, final, 10)
return ack(f, tail)
"""
)

# KEYS h m s; ARGV after limit bytes
READ = script(
    """
local f = redis.call('HMGET', KEYS[1], 'tail', 'state', 'ml')
if not f[1] then return {'missing'} end
local after, limit, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if after < 0 or after > tonumber(f[1]) then return {'unknown', f[1]} end
local found, count, step = {}, 0, 16
while count < limit do
  local most = math.min(step, limit - count)
  local page = redis.call('XRANGE', KEYS[3], int(after + count + 1), '+', 'COUNT', most)
  for _, entry in ipairs(page) do
    room = room - #entry[2][2]
    if room < 0 and count > 0 then break end
    count = count + 1
    found[count] = entry
  end
  if room < 0 or #page < most then break end
  step = step * 2
end
local final = f[2] and string.sub(redis.call('GET', KEYS[2]) or '', f[3] + 1) or ''
return {'ok', f[1], f[2], final, found}
"""
)

# KEYS h m s; ARGV at
HEAD = script(
    """
local f = redis.call('HMGET', KEYS[1], 'tail', 'state', 'ml')
if not f[1] then return {'missing'} end
local final = f[2] and string.sub(redis.call('GET', KEYS[2]) or '', f[3] + 1) or ''
local at, seen = ARGV[1], function(from, to)
  local page = redis.call('XREVRANGE', KEYS[3], to, from, 'COUNT', 1)
  return page[1] and page[1][1] or ''
end
return {'ok', f[1], f[2], final, seen(at, at), seen('-', '+')}
"""
)

# KEYS h m
INFO = script(
    """
local f = known(KEYS[1], KEYS[2])
if not f[1] then return {'missing'} end
return {'ok', f}
"""
)

# KEYS (h, m)...
ROWS = script(
    """
local rows = {}
for i = 1, #KEYS, 2 do
  local f = known(KEYS[i], KEYS[i + 1])
  rows[#rows + 1] = f[1] and f or {}
end
return {'ok', rows}
"""
)

# KEYS (h, m)...; what a search compares: what was given at the creation, and whether it is closed
LABELS = script(
    """
local rows = {}
for i = 1, #KEYS, 2 do
  local f = redis.call('HMGET', KEYS[i], 'ml', 'state')
  local meta = f[1] and string.sub(redis.call('GET', KEYS[i + 1]) or '', 1, f[1]) or ''
  rows[#rows + 1] = (f[2] and '1' or '0') .. meta
end
return {'ok', rows}
"""
)

# KEYS h stops; ARGV id
CANCEL = script(
    """
local f = redis.call('HMGET', KEYS[1], 'tail', 'state', 'process')
if not f[1] then return {'missing'} end
if f[2] then return {'ok', 0} end
redis.call('HSET', KEYS[1], 'cancelled', 1)
redis.call('HSET', KEYS[2], ARGV[1], f[3] or '0')
return {'ok', 1}
"""
)

# KEYS h m s open closed all owner sum stops gone; ARGV id score ('': whatever it is in open)
REMOVE = script(
    """
local f = redis.call('HMGET', KEYS[1], 'size')
if not f[1] then return {'missing'} end
if ARGV[2] ~= '' then
  local score = redis.call('ZSCORE', KEYS[4], ARGV[1])
  if not score or tonumber(score) ~= tonumber(ARGV[2]) then return {'busy'} end
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
for i = 4, 7 do redis.call('ZREM', KEYS[i], ARGV[1]) end
if f[1] ~= '0' then redis.call('HINCRBY', KEYS[8], 'size', '-' .. f[1]) end
redis.call('HDEL', KEYS[9], ARGV[1])
redis.call('SET', KEYS[10], '', 'EX', 600)
redis.call('PUBLISH', KEYS[1], 'g\\n')
return {'ok', f[1]}
"""
)
