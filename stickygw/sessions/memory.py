"""Sessions inside one process: for one worker alone, and for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from stickygw.errors import SessionValueError
from stickygw.sessions.base import MAX_INTEGER, check_session_id
from stickygw.sessions.values import pack, unpack
from stickygw.types import SessionId

MAX_SESSIONS = 100_000
"""When one more is stored, the one longest untouched goes."""


@dataclass(slots=True)
class _Stored:
    fields: dict[str, bytes]
    ends_at: float


class MemorySessionStore:
    """A `SessionStore` in a dict. `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, max_sessions: int = MAX_SESSIONS) -> None:
        self._clock = clock
        self._max_sessions = max_sessions
        self._sessions: dict[str, _Stored] = {}  # the one longest untouched first

    async def load(self, id: SessionId) -> dict[str, bytes] | None:
        """See `SessionStore.load`."""
        stored = self._live(id)
        return None if stored is None else dict(stored.fields)

    async def write(self, id: SessionId, changed: Mapping[str, bytes], removed: Collection[str], ttl: int) -> None:
        """See `SessionStore.write`."""
        stored = self._live(id)
        fields = {} if stored is None else stored.fields
        fields.update(changed)
        for field in removed:
            fields.pop(field, None)
        self._store(id, fields, ttl)

    async def increment(self, id: SessionId, field: str, by: int, ttl: int) -> int:
        """See `SessionStore.increment`."""
        stored = self._live(id)
        fields = {} if stored is None else stored.fields
        value = unpack(field, fields[field]) if field in fields else 0
        if type(value) is not int:
            raise SessionValueError(f"session field {field!r} holds no integer")
        value += by
        if abs(value) > MAX_INTEGER or abs(value - by) > MAX_INTEGER:
            raise SessionValueError(f"session field {field!r} would leave ±{MAX_INTEGER}")
        fields[field] = pack(field, value)
        self._store(id, fields, ttl)
        return value

    async def touch(self, id: SessionId, ttl: int) -> None:
        """See `SessionStore.touch`."""
        stored = self._live(id)
        if stored is not None:
            self._store(id, stored.fields, ttl)

    async def delete(self, id: SessionId) -> None:
        """See `SessionStore.delete`."""
        self._sessions.pop(check_session_id(id), None)

    async def close(self) -> None:
        """Nothing is held open."""

    def _live(self, id: SessionId) -> _Stored | None:
        stored = self._sessions.get(check_session_id(id))
        if stored is not None and stored.ends_at <= self._clock():
            del self._sessions[id]
            return None
        return stored

    def _store(self, id: SessionId, fields: dict[str, bytes], ttl: int) -> None:
        self._sessions.pop(id, None)
        if not fields:
            return  # a hash without fields does not exist, as in Redis
        self._sessions[id] = _Stored(fields, self._clock() + ttl)
        if len(self._sessions) > self._max_sessions:
            del self._sessions[next(iter(self._sessions))]
