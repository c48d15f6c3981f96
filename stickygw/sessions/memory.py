"""Sessions inside one process: for one worker alone, and for tests."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from stickygw.errors import SessionEnded, SessionValueError
from stickygw.sessions.base import MAX_INTEGER, Described, Loaded, SessionConflict, check_session_id
from stickygw.sessions.values import pack, unpack
from stickygw.types import SessionId

MAX_SESSIONS = 100_000
"""When one more is stored, the one longest untouched goes; so it is with ends that are remembered, and with leases."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Stored:
    fields: dict[str, bytes]
    version: bytes
    created: int


class MemorySessionStore:
    """A `SessionStore` in dicts. `clock` gives seconds and never goes back, `now` Unix seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        now: Callable[[], float] = time.time,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self._now = now
        self._sessions = _Expiring[_Stored](clock, max_sessions)
        self._ends = _Expiring[bool](clock, max_sessions)
        self._leases = _Expiring[str](clock, max_sessions)
        self._writer = secrets.token_hex(8)
        self._writes = count(1)
        self.on_changed: list[Callable[[list[SessionId]], None]] = []
        """Called with the session that was written or ended, as `tracking.Tracking` does it for a server's."""

    async def load(self, id: SessionId) -> Loaded | None:
        """See `SessionStore.load`."""
        stored = self._stored(id)
        if stored is None:
            return None
        return Loaded(dict(stored.fields), stored.version, self._sessions.seconds_left(id))

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
        fields = self._fields_to_change(id, is_new=is_new)
        current = {field: fields.get(field) for field in expected or ()}
        if expected is not None and current != dict(expected):
            raise SessionConflict(current)
        for field in removed:
            fields.pop(field, None)
        fields.update(changed)
        self._store(id, fields, ttl)

    async def increment(self, id: SessionId, field: str, by: int, ttl: int, *, is_new: bool) -> int:
        """See `SessionStore.increment`."""
        fields = self._fields_to_change(id, is_new=is_new)
        value = unpack(field, fields[field]) if field in fields else 0
        if type(value) is not int:
            raise SessionValueError(f"session field {field!r} holds no integer")
        value += by
        if abs(value) > MAX_INTEGER or abs(value - by) > MAX_INTEGER:
            raise SessionValueError(f"session field {field!r} would leave ±{MAX_INTEGER}")
        fields[field] = pack(field, value)
        self._store(id, fields, ttl)
        return value

    async def touch(self, id: SessionId, ttl: int) -> bool:
        """See `SessionStore.touch`."""
        stored = self._sessions.get(check_session_id(id))
        if stored is not None:
            self._sessions.put(id, stored, ttl)
        return stored is not None

    async def end(self, id: SessionId, remember: int, *, version: bytes | None = None) -> None:
        """See `SessionStore.end`."""
        stored = self._sessions.get(check_session_id(id))
        current = b"" if stored is None else stored.version
        if version is not None and (self._ends.get(id) or version != current):
            raise SessionConflict
        self._sessions.pop(id)
        self._ends.put(id, True, remember)
        self._changed(id)

    async def ended_within(self, id: SessionId, remember: int, seconds: float) -> bool:
        """See `SessionStore.ended_within`."""
        return self._ends.get(check_session_id(id)) is not None and self._ends.seconds_left(id) >= remember - seconds

    async def lease(self, id: SessionId, token: str, seconds: float) -> bool:
        """See `SessionStore.lease`."""
        if self._leases.get(check_session_id(id)) is not None:
            return False
        self._leases.put(id, token, seconds)
        return True

    async def release_lease(self, id: SessionId, token: str) -> None:
        """See `SessionStore.release_lease`."""
        if self._leases.get(check_session_id(id)) == token:
            self._leases.pop(id)

    async def sessions(self) -> AsyncIterator[SessionId]:
        """See `SessionStore.sessions`."""
        for id in self._sessions.ids():
            yield SessionId(id)

    async def describe(self, ids: Sequence[SessionId]) -> list[Described | None]:
        """See `SessionStore.describe`."""
        return [self._described(id) for id in ids]

    def _described(self, id: SessionId) -> Described | None:
        stored = self._sessions.get(check_session_id(id))
        if stored is None:
            return None
        size = sum(len(field.encode(errors="surrogateescape")) + len(value) for field, value in stored.fields.items())
        return Described(stored.created, math.ceil(self._sessions.seconds_left(id)), len(stored.fields), size)

    async def close(self) -> None:
        """Nothing is held open."""

    def _stored(self, id: SessionId) -> _Stored | None:
        if self._ends.get(check_session_id(id)):
            raise SessionEnded("the session has ended")
        return self._sessions.get(id)

    def _fields_to_change(self, id: SessionId, *, is_new: bool) -> dict[str, bytes]:
        stored = self._stored(id)
        if stored is None and not is_new:
            raise SessionEnded("nothing is stored of the session any more")
        return {} if stored is None else dict(stored.fields)

    def _store(self, id: SessionId, fields: dict[str, bytes], ttl: int) -> None:
        before = self._sessions.get(id)
        created = int(self._now()) if before is None else before.created
        self._sessions.put(id, _Stored(fields, f"{self._writer}:{next(self._writes)}".encode(), created), ttl)
        self._changed(id)

    def _changed(self, id: SessionId) -> None:
        for call in self.on_changed:
            call([id])


class _Expiring(Generic[T]):
    """Values that end, at most `limit` of them."""

    def __init__(self, clock: Callable[[], float], limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._kept: dict[str, tuple[T, float]] = {}  # the one longest untouched first

    def get(self, id: str) -> T | None:
        if id in self._kept and self.seconds_left(id) <= 0:
            del self._kept[id]
        return self._kept[id][0] if id in self._kept else None

    def put(self, id: str, value: T, seconds: float) -> None:
        self._kept.pop(id, None)
        self._kept[id] = (value, self._clock() + seconds)
        if len(self._kept) > self._limit:
            del self._kept[next(iter(self._kept))]

    def pop(self, id: str) -> None:
        self._kept.pop(id, None)

    def ids(self) -> list[str]:
        return [id for id in list(self._kept) if self.get(id) is not None]

    def seconds_left(self, id: str) -> float:
        """Of one that is kept."""
        return self._kept[id][1] - self._clock()
