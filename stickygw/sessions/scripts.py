"""What a Redis or Valkey does to a session in one go: Lua, which it runs without letting anybody in between.

All keys of one script have the session's id in braces, so that a cluster keeps them on one node.
"""

from __future__ import annotations

from stickygw.sessions.base import MAX_INTEGER
from stickygw.sessions.values import CREATED_FIELD, VERSION_FIELD

_REFUSE = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 'ended' end
if is_new == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return 'gone' end
"""

# What every change leaves behind: without an application's field, too, for an emptied session is not an ended one.
_KEEP = f"""
redis.call('HSET', KEYS[1], '{VERSION_FIELD}', version)
redis.call('HSETNX', KEYS[1], '{CREATED_FIELD}', redis.call('TIME')[1])
redis.call('EXPIRE', KEYS[1], ttl)
"""

WRITE = f"""
-- KEYS: session, its end. ARGV: is_new, ttl, version; how many fields are expected, then name and '=' .. value or ''
-- of each; how many are removed, and their names; name and value of what is set. Answers with a word, or with
-- 'conflict' and what the expected fields are.
local is_new, ttl, version = ARGV[1], ARGV[2], ARGV[3]
local at = 4
local function take()
  at = at + 1
  return ARGV[at - 1]
end
{_REFUSE}
local is_conflict, answer = false, {{'conflict'}}
for n = 1, tonumber(take()) do
  local current = redis.call('HGET', KEYS[1], take())
  if take() ~= (current and '=' .. current or '') then is_conflict = true end
  answer[n + 1] = current
end
if is_conflict then return answer end
for _ = 1, tonumber(take()) do redis.call('HDEL', KEYS[1], take()) end
while at < #ARGV do redis.call('HSET', KEYS[1], take(), take()) end
{_KEEP}
return 'written'
"""

END = f"""
-- KEYS: session, its end. ARGV: how long to remember it, what to write there, and the version that is expected, if any.
if ARGV[3] and (redis.call('EXISTS', KEYS[2]) == 1
    or (redis.call('HGET', KEYS[1], '{VERSION_FIELD}') or '') ~= ARGV[3]) then return 'conflict' end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[1])
redis.call('DEL', KEYS[1])
return 'ended'
"""

# The first byte tells a msgpack integer (fixint, uint 8…64, int 8…64) from everything else, floats too.
INCREMENT = f"""
-- KEYS: session, its end. ARGV: is_new, ttl, version, field, by. Answers with the sum, or with a word.
local is_new, ttl, version, field, by = unpack(ARGV)
{_REFUSE}
local packed = redis.call('HGET', KEYS[1], field)
local value = 0
if packed then
  local kind = string.byte(packed)
  if not kind or (kind > 0x7f and kind < 0xcc) or (kind > 0xd3 and kind < 0xe0) then return 'no integer' end
  local ok, unpacked = pcall(cmsgpack.unpack, packed)
  if not ok or type(unpacked) ~= 'number' then return 'no integer' end
  value = unpacked
  if kind == 0xcf and value < 0 then return 'out of range' end  -- cmsgpack reads uint 64 from 2^63 on as negative
end
local sum = value + tonumber(by)
if math.abs(value) > {MAX_INTEGER} or math.abs(sum) > {MAX_INTEGER} then return 'out of range' end
redis.call('HSET', KEYS[1], field, cmsgpack.pack(sum))
{_KEEP}
return sum
"""

RELEASE_LEASE = """
-- KEYS: lease. ARGV: token.
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
