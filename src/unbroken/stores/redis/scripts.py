"""What Redis does in one step: the scripts, in Lua, with commands that Redis 6.2 has.

A stream has three keys, all in one slot with the lists of its shard:

    h   a hash: tail, size, fence, expires, ... (numbers and short words, so that it stays small)
    m   a string: what was given at its creation, and behind `ml` bytes what was given at its end
    s   the Redis Stream of records; the id of an entry is OFFSET-FENCE, its one field is `d`

and the shard has sorted sets of streams: `open` by the end of their lease, `closed` by the time
of their close, `all` and one for each owner by number; and a hash `sum` with the bytes of all
records and the last number.

Numbers rise over all shards because they are the server's time, each shard having its own
remainder. Fences after the first are the server's time in milliseconds: if a fail-over forgets
who was made the producer, the next one does not get the same number again.

A call may come twice, when its answer was lost with a connection: `by` is the token of the last
call that changed the log, and the same token gets the same answer.

A script answers with a list that begins with a word: `ok`, or what was wrong.
"""

from hashlib import sha1
from typing import NamedTuple

# A message on a stream's channel, which is named as its hash: a line of words, then bytes.
#   a FIRST TAIL FENCE STATE FINAL LENGTHS...   records behind FIRST; STATE, FINAL: lengths or -1
#   c                                           somebody asks the producer to stop
#   g                                           it is gone
_COMMON = """
local function server_time()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local function clock(given)
  if given ~= '' then return tonumber(given) end
  return server_time() / 1000000
end
local function int(number) return string.format('%.0f', number) end
local function exact(number) return string.format('%.17g', number) end
local function publish(h, first, tail, fence, state, final, from)
  local records, lengths, size = {}, {}, 0
  for i = from, #ARGV do
    records[#records + 1] = ARGV[i]
    lengths[#lengths + 1] = #ARGV[i]
    size = size + #ARGV[i]
  end
  local line = {'a', first, tail, fence, state and #state or -1, #final}
  if size > 32768 then records, lengths = {}, {} end
  for _, length in ipairs(lengths) do line[#line + 1] = length end
  redis.call('PUBLISH', h,
    table.concat(line, ' ') .. '\\n' .. (state or '') .. final .. table.concat(records))
end
local function add(s, tail, fence, from)
  local size = 0
  for i = from, #ARGV do
    tail = tail + 1
    size = size + #ARGV[i]
    redis.call('XADD', s, int(tail) .. '-' .. fence, 'd', ARGV[i])
  end
  return tail, size
end
local function known(h, m)
  local f = redis.call('HMGET', h, 'tail', 'size', 'fence', 'expires', 'created', 'changed',
    'number', 'producer', 'cancelled', 'state', 'ml')
  f[12] = redis.call('GET', m) or ''
  return f
end
"""

# KEYS h m s open all owner sum gone claim (none if it is in another shard)
# ARGV id meta producer seconds now token claimed shard shards records...
# In the same step a claim that was made for a while becomes one for ever, so that nobody who dies
# in between leaves a key to nothing, or a stream without its key.
_CREATE = """
local h, m = KEYS[1], KEYS[2]
local by, claim = redis.call('HGET', h, 'by'), KEYS[9]
local ours = claim and redis.call('GET', claim) == ARGV[1]
if ours then redis.call('PERSIST', claim) end
if by then return {by == ARGV[6] and 'ok' or 'there', known(h, m)} end
if claim and not ours then return {'gone'} end
if ARGV[7] == '1' and redis.call('EXISTS', KEYS[8]) == 1 then return {'gone'} end
local now, producer, shards = clock(ARGV[5]), ARGV[3], tonumber(ARGV[9])
local number = math.floor(server_time() / shards) * shards + tonumber(ARGV[8])
local last = tonumber(redis.call('HGET', KEYS[7], 'last') or '0')
if number <= last then number = last + shards end
local fence = producer ~= '' and '1' or '0'
local expires = producer ~= '' and exact(now + tonumber(ARGV[4])) or '0'
local tail, size = add(KEYS[3], 0, fence, 10)
redis.call('HSET', h, 'tail', int(tail), 'size', int(size), 'fence', fence, 'expires', expires,
  'created', exact(now), 'changed', exact(now), 'number', int(number), 'producer', producer,
  'ml', #ARGV[2], 'by', ARGV[6])
redis.call('SET', m, ARGV[2])
redis.call('ZADD', KEYS[4], expires, ARGV[1])
redis.call('ZADD', KEYS[5], int(number), ARGV[1])
redis.call('ZADD', KEYS[6], int(number), ARGV[1])
redis.call('HSET', KEYS[7], 'last', int(number))
redis.call('HINCRBY', KEYS[7], 'size', size)
return {'ok', known(h, m)}
"""

# KEYS h m s open closed sum; ARGV id at fence token now closing state final records...
# Answers most often, so with one number: twice the tail, and one more if it should stop.
_APPEND = """
local h, m = KEYS[1], KEYS[2]
local f = redis.call('HMGET', h, 'tail', 'fence', 'state', 'cancelled', 'by', 'ml', 'size')
if not f[1] then return {'missing'} end
local cancelled = f[4] and 1 or 0
if f[5] == ARGV[4] then return 2 * f[1] + cancelled end
local closing, state, final = ARGV[6] == '1', ARGV[7], ARGV[8]
if f[3] then
  local same = closing and #ARGV < 9 and f[3] == state
  if same and string.sub(redis.call('GET', m) or '', f[6] + 1) == final then
    return 2 * f[1] + cancelled
  end
  return {'closed', f[3]}
end
if ARGV[3] ~= f[2] then return {'fence', f[2]} end
if tonumber(ARGV[2]) ~= tonumber(f[1]) then return {'offset', f[1]} end
if #ARGV < 9 and not closing then return 2 * f[1] + cancelled end
local tail, size = add(KEYS[3], tonumber(f[1]), f[2], 9)
tail = int(tail)
redis.call('HSET', h, 'tail', tail, 'size', int(f[7] + size), 'by', ARGV[4])
if size > 0 then redis.call('HINCRBY', KEYS[6], 'size', size) end
if closing then
  local now = exact(clock(ARGV[5]))
  redis.call('HSET', h, 'state', state, 'changed', now)
  if final ~= '' then redis.call('APPEND', m, final) end
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('ZADD', KEYS[5], now, ARGV[1])
end
publish(h, f[1], tail, f[2], closing and state or nil, final, 9)
return 2 * tail + cancelled
"""

# KEYS h m s; ARGV after limit bytes
_READ = """
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

# KEYS h m s; ARGV at
_HEAD = """
local f = redis.call('HMGET', KEYS[1], 'tail', 'state', 'ml', 'cancelled')
if not f[1] then return {'missing'} end
local final = f[2] and string.sub(redis.call('GET', KEYS[2]) or '', f[3] + 1) or ''
local at, seen = ARGV[1], function(from, to)
  local page = redis.call('XREVRANGE', KEYS[3], to, from, 'COUNT', 1)
  return page[1] and page[1][1] or ''
end
return {'ok', f[1], f[2], final, f[4] and 1 or 0, seen(at, at), seen('-', '+')}
"""

# KEYS h m
_INFO = """
local f = known(KEYS[1], KEYS[2])
if not f[1] then return {'missing'} end
return {'ok', f}
"""

# KEYS h
_CANCEL = """
local f = redis.call('HMGET', KEYS[1], 'tail', 'state')
if not f[1] then return {'missing'} end
if f[2] then return {'ok', 0} end
redis.call('HSET', KEYS[1], 'cancelled', 1)
redis.call('PUBLISH', KEYS[1], 'c\\n')
return {'ok', 1}
"""

# KEYS h; ARGV now seconds (none: only ask)
_ATTEND = """
local f = redis.call('HMGET', KEYS[1], 'tail', 'attended')
if not f[1] then return {'missing'} end
local now, until_ = clock(ARGV[1]), tonumber(f[2] or '0')
if ARGV[2] ~= '' then
  until_ = math.max(until_, now + tonumber(ARGV[2]))
  redis.call('HSET', KEYS[1], 'attended', exact(until_))
end
return {'ok', exact(math.max(until_ - now, 0))}
"""

# KEYS h open; ARGV id producer seconds now
_ACQUIRE = """
local f = redis.call('HMGET', KEYS[1], 'tail', 'fence', 'state', 'cancelled', 'producer', 'expires')
if not f[1] then return {'missing'} end
if f[3] then return {'closed', f[3]} end
local now = clock(ARGV[4])
if f[5] ~= ARGV[2] and tonumber(f[6]) > now then return {'busy'} end
local fence = int(math.max(tonumber(f[2]) + 1, math.floor(server_time() / 1000)))
local expires = exact(now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'fence', fence, 'producer', ARGV[2], 'expires', expires)
redis.call('ZADD', KEYS[2], expires, ARGV[1])
return {'ok', fence, expires, f[1], f[4] and 1 or 0}
"""

# KEYS h open; ARGV id producer seconds now fence
_RENEW = """
local f = redis.call('HMGET', KEYS[1], 'tail', 'fence', 'state', 'cancelled')
if not f[1] then return {'missing'} end
if f[3] then return {'closed', f[3]} end
if f[2] ~= ARGV[5] then return {'fence', f[2]} end
local expires = exact(clock(ARGV[4]) + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'producer', ARGV[2], 'expires', expires)
redis.call('ZADD', KEYS[2], expires, ARGV[1])
return {'ok', f[2], expires, f[1], f[4] and 1 or 0}
"""

# KEYS h open; ARGV id fence
_RELEASE = """
local f = redis.call('HMGET', KEYS[1], 'fence', 'state')
if f[1] ~= ARGV[2] or f[2] then return {'ok'} end
redis.call('HSET', KEYS[1], 'fence', int(tonumber(f[1]) + 1), 'producer', '', 'expires', '0')
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return {'ok'}
"""

# KEYS open; ARGV now limit
_ORPHANS = """
local now = exact(clock(ARGV[1]))
return {'ok', now, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])}
"""

# KEYS open closed sum; ARGV now age ('' for none) limit
_OLD = """
local size = redis.call('HGET', KEYS[3], 'size') or '0'
if ARGV[2] == '' then
  return {'ok', size, '', {}, redis.call('ZRANGE', KEYS[2], 0, ARGV[3] - 1, 'WITHSCORES')}
end
local since = exact(clock(ARGV[1]) - tonumber(ARGV[2]))
return {'ok', size, since,
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', since),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', since, 'LIMIT', 0, ARGV[3])}
"""

# KEYS h m s open closed all owner sum gone; ARGV id since ('' for: whatever it is)
_REMOVE = """
local f = redis.call('HMGET', KEYS[1], 'size', 'state', 'changed', 'expires', 'created')
if not f[1] then return {'missing'} end
local over = f[2] and tonumber(f[3]) or math.max(tonumber(f[4]), tonumber(f[5]))
if ARGV[2] ~= '' and over > tonumber(ARGV[2]) then return {'busy'} end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
for i = 4, 7 do redis.call('ZREM', KEYS[i], ARGV[1]) end
if f[1] ~= '0' then redis.call('HINCRBY', KEYS[8], 'size', '-' .. f[1]) end
redis.call('SET', KEYS[9], '', 'EX', 600)
redis.call('PUBLISH', KEYS[1], 'g\\n')
return {'ok', f[1]}
"""

# KEYS claim; ARGV id seconds (0: for ever)
_CLAIM = """
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1]) end
if ARGV[2] ~= '0' and (not held or redis.call('TTL', KEYS[1]) >= 0) then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {'ok', held or ARGV[1]}
"""

# KEYS claim; ARGV id
_UNCLAIM = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'ok'}
"""

# KEYS set; ARGV max limit
_LIST = """
return {'ok', redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[2])}
"""

# KEYS agreed; ARGV shards
_AGREE = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return {'ok', redis.call('GET', KEYS[1])}
"""


class Script(NamedTuple):
    """A script's text and the name that Redis keeps it under."""

    text: str
    sha: str


def _script(body: str) -> Script:
    text = _COMMON + body
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


CREATE, APPEND, READ, HEAD, INFO = map(_script, (_CREATE, _APPEND, _READ, _HEAD, _INFO))
CANCEL, ATTEND, ACQUIRE, RENEW = map(_script, (_CANCEL, _ATTEND, _ACQUIRE, _RENEW))
RELEASE, ORPHANS, OLD, REMOVE = map(_script, (_RELEASE, _ORPHANS, _OLD, _REMOVE))
CLAIM, UNCLAIM, LIST, AGREE = map(_script, (_CLAIM, _UNCLAIM, _LIST, _AGREE))
ALL = tuple(found for found in globals().values() if isinstance(found, Script))
