"""Lua functions that the scripts share, and the making of a script."""

from hashlib import sha1
from typing import NamedTuple

# A message on a stream's channel, which is named as its hash: a line of words, then bytes.
#   a FIRST TAIL FENCE STATE FINAL LENGTHS...   records behind FIRST; STATE, FINAL: lengths or -1
#   g                                           the stream was deleted
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
local function head(h)
  return redis.call('HMGET', h, 'tail', 'fence', 'state', 'cancelled', 'by', 'size', 'takeovers')
end
local function ack(f, tail) return 2 * tail + (f[4] and 1 or 0) end
local function refusal(f, at, fence)
  if f[3] then return {'closed', f[3]} end
  if fence ~= f[2] then return {'fence', f[2]} end
  if tonumber(at) ~= tonumber(f[1]) then return {'offset', f[1]} end
end
local function extend(h, s, sum, f, token, from)
  local tail, size = add(s, tonumber(f[1]), f[2], from)
  redis.call('HSET', h, 'tail', int(tail), 'size', int(f[6] + size), 'by', token)
  if size > 0 then redis.call('HINCRBY', sum, 'size', size) end
  if f[7] and #ARGV >= from then redis.call('HDEL', h, 'takeovers') end
  return int(tail)
end
local function known(h, m)
  local f = redis.call('HMGET', h, 'tail', 'size', 'fence', 'created', 'changed', 'number',
    'producer', 'cancelled', 'state', 'ml')
  f[11] = redis.call('GET', m) or ''
  return f
end
-- A list of [seconds of the window, {field: amount}, {field: limit}], one for each key.
local function charge(list, first, now, late)
  local charges, ends = cjson.decode(list), {}
  for i, one in ipairs(charges) do
    local key = KEYS[first + i - 1]
    ends[i] = int((math.floor(now / one[1]) + 1) * one[1])
    local current = redis.call('HGET', key, 'until') == ends[i]
    for field, limit in pairs(one[3]) do
      local used = current and redis.call('HGET', key, ':' .. field) or '0'
      if tonumber(used) >= limit then return {'quota', i, field, used, ends[i]} end
    end
  end
  for i, one in ipairs(charges) do
    local key = KEYS[first + i - 1]
    local last = redis.call('HGET', key, 'until')
    if last ~= ends[i] and not (last and late and last > ends[i]) then
      redis.call('DEL', key)
      redis.call('HSET', key, 'until', ends[i])
      redis.call('EXPIRE', key, 2 * one[1])
      last = ends[i]
    end
    if last == ends[i] then
      for field, amount in pairs(one[2]) do
        redis.call('HINCRBY', key, ':' .. field, int(amount))
      end
    end
  end
end
"""


class Script(NamedTuple):
    """A script's text and the name that Redis keeps it under."""

    text: str
    sha: str


def script(body: str) -> Script:
    """Make a script that can use the shared functions."""
    text = _COMMON + body
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
