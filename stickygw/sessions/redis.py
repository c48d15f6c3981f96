"""Sessions in Redis or Valkey: for each a hash ``<prefix>:session:{<id>}``, with a time to live.

Beside it ``<prefix>:session-end:{<id>}`` says that it was ended, and ``<prefix>:session-lock:{<id>}`` is its lease.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stickygw.errors import SessionEnded, SessionUnavailable, SessionValueError
from stickygw.sessions.base import MAX_INTEGER, Described, Loaded, SessionConflict, check_session_id
from stickygw.sessions.scripts import END, INCREMENT, RELEASE_LEASE, WRITE
from stickygw.sessions.values import OWN_FIELDS, VERSION_FIELD
from stickygw.types import SessionId

MAX_CONNECTIONS = 16
"""Of one store; further commands wait for one, within the same time limit."""

SCAN_COUNT = 500
"""So many keys the server looks at in one step of `RedisSessionStore.sessions`, and serves others between two."""

_VERSION = VERSION_FIELD.encode()
_OWN = frozenset(name.encode() for name in OWN_FIELDS)


def _name(field: str) -> bytes:
    """`field` as the server names it. Another program's names may be no UTF-8: they must not make a session
    unreadable, nor unwritable."""
    return field.encode(errors="surrogateescape")


class RedisSessionStore:
    """A `SessionStore` over `client`, which it closes at the end.

    The client must not retry, for an increment that was perhaps made must not be made again, and must not
    decode responses; `from_url` makes one so. `prefix` has no character that means something in a pattern.
    `timeout`: seconds for one call, waiting for a connection included.
    """

    def __init__(self, client: Redis, prefix: str, *, timeout: float = 1.0) -> None:
        self._client = client
        self._prefix = prefix
        self._timeout = timeout
        self._write = client.register_script(WRITE)
        self._increment = client.register_script(INCREMENT)
        self._end = client.register_script(END)
        self._release_lease = client.register_script(RELEASE_LEASE)
        self._writer = secrets.token_hex(8)
        self._writes = count(1)

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

    async def load(self, id: SessionId) -> Loaded | None:
        """See `SessionStore.load`."""
        key, end = self._keys(id)
        async with self._answer(), self._client.pipeline(transaction=False) as pipeline:
            # In this order no transaction is needed: an end between the two is seen.
            pipeline.hgetall(key)
            pipeline.pttl(key)
            pipeline.exists(end)
            stored, left, is_ended = await pipeline.execute()
        if is_ended:
            raise SessionEnded("the session has ended")
        if not stored:
            return None
        fields = {name.decode(errors="surrogateescape"): packed for name, packed in stored.items() if name not in _OWN}
        return Loaded(fields, stored.get(_VERSION, b""), left / 1000 if left >= 0 else None)

    async def write(
        self,
        id: SessionId,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        ttl: int,
        *,
        is_new: bool,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """See `SessionStore.write`."""
        expected = expected or {}
        arguments: list[Any] = [int(is_new), ttl, self._version(), len(expected)]
        for field, packed in expected.items():
            arguments += [_name(field), b"" if packed is None else b"=" + packed]
        arguments += [len(removed), *map(_name, removed)]
        for field, packed in changed.items():
            arguments += [_name(field), packed]
        async with self._answer():
            answer: Any = await self._write(keys=self._keys(id), args=arguments)
        match answer:
            case b"written":
                return
            case [b"conflict", *current]:
                raise SessionConflict(dict(zip(expected, current, strict=True)))
            case _:
                raise _ended(answer)

    async def increment(self, id: SessionId, field: str, by: int, ttl: int, *, is_new: bool) -> int:
        """See `SessionStore.increment`."""
        arguments: list[Any] = [int(is_new), ttl, self._version(), _name(field), by]
        async with self._answer():
            answer: Any = await self._increment(keys=self._keys(id), args=arguments)
        match answer:
            case int():
                return answer
            case b"no integer":
                raise SessionValueError(f"session field {field!r} holds no integer")
            case b"out of range":
                raise SessionValueError(f"session field {field!r} would leave ±{MAX_INTEGER}")
            case _:
                raise _ended(answer)

    async def touch(self, id: SessionId, ttl: int) -> bool:
        """See `SessionStore.touch`."""
        key, _ = self._keys(id)
        async with self._answer():
            return bool(await self._client.expire(key, ttl))

    async def end(self, id: SessionId, remember: int, *, version: bytes | None = None) -> None:
        """See `SessionStore.end`."""
        arguments: list[Any] = [remember, self._version()]
        if version is not None:
            arguments.append(version)
        async with self._answer():
            answer: Any = await self._end(keys=self._keys(id), args=arguments)
        if answer == b"conflict":
            raise SessionConflict

    async def ended_within(self, id: SessionId, remember: int, seconds: float) -> bool:
        """See `SessionStore.ended_within`."""
        _, end = self._keys(id)
        async with self._answer():
            left = await self._client.pttl(end)
        return bool(left >= 0 and left >= (remember - seconds) * 1000)

    async def lease(self, id: SessionId, token: str, seconds: float) -> bool:
        """See `SessionStore.lease`."""
        key = self._key("session-lock", id)
        async with self._answer():
            return bool(await self._client.set(key, token, nx=True, px=round(seconds * 1000)))

    async def release_lease(self, id: SessionId, token: str) -> None:
        """See `SessionStore.release_lease`."""
        key = self._key("session-lock", id)
        async with self._answer():
            await self._release_lease(keys=[key], args=[token])

    async def sessions(self) -> AsyncIterator[SessionId]:
        """See `SessionStore.sessions`. By SCAN, so that the server is never held up, and in bounded memory."""
        start = f"{self._prefix}:session:{{".encode()
        cursor = 0
        while True:
            async with self._answer():
                cursor, keys = await self._client.scan(cursor, match=start + b"*}", count=SCAN_COUNT, _type="hash")
            for key in cast("list[bytes]", keys):
                yield SessionId(key[len(start) : -1].decode(errors="replace"))
            if cursor == 0:
                return

    async def describe(self, ids: Sequence[SessionId]) -> list[Described | None]:
        """See `SessionStore.describe`."""
        async with self._answer(), self._client.pipeline(transaction=False) as pipeline:
            for id in ids:
                key, _ = self._keys(id)
                pipeline.ttl(key)
                pipeline.hlen(key)
                pipeline.hmget(key, sorted(OWN_FIELDS))
                pipeline.memory_usage(key)
            answers = iter(await pipeline.execute())
        return [_described(*of_one) for of_one in zip(answers, answers, answers, answers, strict=True)]

    async def close(self) -> None:
        """See `SessionStore.close`."""
        await self._client.aclose()

    def _key(self, kind: str, id: SessionId) -> str:
        return f"{self._prefix}:{kind}:{{{check_session_id(id)}}}"

    def _keys(self, id: SessionId) -> list[str]:
        """The session's own, and that of its end."""
        return [self._key("session", id), self._key("session-end", id)]

    def _version(self) -> str:
        return f"{self._writer}:{next(self._writes)}"

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


def _ended(answer: object) -> SessionEnded:
    assert answer in {b"ended", b"gone"}, answer
    return SessionEnded("the session has ended" if answer == b"ended" else "nothing is stored of the session any more")


def _described(seconds_left: int, length: int, own: list[bytes | None], size: int | None) -> Described | None:
    """`own`: the values of `OWN_FIELDS`, in the order of their names."""
    if size is None or seconds_left == -2:  # it may end between two answers
        return None
    created = own[0] if own[0] is not None and own[0].isdigit() else None
    length -= sum(value is not None for value in own)
    return Described(
        None if created is None else int(created), None if seconds_left < 0 else seconds_left, length, size
    )
