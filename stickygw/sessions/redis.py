"""Sessions in Redis or Valkey: a hash ``<prefix>:session:<id>`` for each, with a time to live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stickygw.errors import SessionUnavailable, SessionValueError
from stickygw.sessions.base import MAX_INTEGER, check_session_id
from stickygw.types import SessionId

MAX_CONNECTIONS = 16
"""Of one store; further commands wait for one, within the same time limit."""

# The first byte tells a msgpack integer (fixint, uint 8…64, int 8…64) from everything else, floats too.
_INCREMENT = f"""
local packed = redis.call('HGET', KEYS[1], ARGV[1])
local value = 0
if packed then
  local kind = string.byte(packed)
  if not kind or (kind > 0x7f and kind < 0xcc) or (kind > 0xd3 and kind < 0xe0) then return 'no integer' end
  local ok, unpacked = pcall(cmsgpack.unpack, packed)
  if not ok or type(unpacked) ~= 'number' then return 'no integer' end
  value = unpacked
  if kind == 0xcf and value < 0 then return 'out of range' end  -- cmsgpack reads uint 64 from 2^63 on as negative
end
local sum = value + tonumber(ARGV[2])
if math.abs(value) > {MAX_INTEGER} or math.abs(sum) > {MAX_INTEGER} then return 'out of range' end
redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(sum))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return sum
"""


def _name(field: str) -> bytes:
    """`field` as the server names it. Another program's names may be no UTF-8: they must not make a session
    unreadable, nor unwritable."""
    return field.encode(errors="surrogateescape")


class RedisSessionStore:
    """A `SessionStore` over `client`, which it closes at the end.

    The client must not retry, for an increment that was perhaps made must not be made again, and must not
    decode responses; `from_url` makes one so. `timeout`: seconds for one call, waiting for a connection
    included.
    """

    def __init__(self, client: Redis, prefix: str, *, timeout: float = 1.0) -> None:
        self._client = client
        self._prefix = f"{prefix}:session:"
        self._timeout = timeout
        self._increment = client.register_script(_INCREMENT)

    @classmethod
    def from_url(cls, url: str, *, prefix: str, timeout: float = 1.0) -> RedisSessionStore:
        """A store with a pool of its own; connects at the first call."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout,
            socket_timeout=None,  # each call has its one limit in `_answer`
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(Redis.from_pool(pool), prefix, timeout=timeout)

    async def load(self, id: SessionId) -> dict[str, bytes] | None:
        """See `SessionStore.load`."""
        key = self._key(id)
        async with self._answer():
            stored = cast("dict[bytes, bytes]", await self._client.hgetall(key))
        return {name.decode(errors="surrogateescape"): packed for name, packed in stored.items()} or None

    async def write(self, id: SessionId, changed: Mapping[str, bytes], removed: Collection[str], ttl: int) -> None:
        """See `SessionStore.write`."""
        key = self._key(id)
        async with self._answer(), self._client.pipeline(transaction=True) as transaction:
            if changed:
                transaction.hset(key, mapping={_name(field): packed for field, packed in changed.items()})
            if removed:
                transaction.hdel(key, *map(_name, removed))
            transaction.expire(key, ttl)
            await transaction.execute()

    async def increment(self, id: SessionId, field: str, by: int, ttl: int) -> int:
        """See `SessionStore.increment`."""
        key = self._key(id)
        async with self._answer():
            answer: Any = await self._increment(keys=[key], args=[_name(field), by, ttl])
        match answer:
            case int():
                return answer
            case b"no integer":
                raise SessionValueError(f"session field {field!r} holds no integer")
            case _:
                raise SessionValueError(f"session field {field!r} would leave ±{MAX_INTEGER}")

    async def touch(self, id: SessionId, ttl: int) -> None:
        """See `SessionStore.touch`."""
        key = self._key(id)
        async with self._answer():
            await self._client.expire(key, ttl)

    async def delete(self, id: SessionId) -> None:
        """See `SessionStore.delete`."""
        key = self._key(id)
        async with self._answer():
            await self._client.delete(key)

    async def close(self) -> None:
        """See `SessionStore.close`."""
        await self._client.aclose()

    def _key(self, id: SessionId) -> str:
        return self._prefix + check_session_id(id)

    @asynccontextmanager
    async def _answer(self) -> AsyncIterator[None]:
        """The time limit of one call, and every failure as `SessionUnavailable`."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise SessionUnavailable(f"the session store did not answer within {self._timeout:g} s") from error
        except (RedisError, OSError) as error:
            raise SessionUnavailable(f"the session store failed: {error}") from error
