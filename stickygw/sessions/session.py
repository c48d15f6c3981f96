"""One session as the application sees it: a mapping that knows what it has to save. `Session`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from stickygw.errors import SessionUnavailable, SessionValueError
from stickygw.sessions.base import MAX_INTEGER, SessionStore
from stickygw.sessions.values import MAX_FIELDS, check_name, is_immutable, pack, unpack
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

TOUCH_SECONDS = 60.0
"""The time to live is extended at most so often by use alone."""

_UNKNOWN = b""
"""In the place of stored bytes after a failed write: whatever is packed differs from it, so it is written
again."""


class Session(MutableMapping[str, Any]):
    """The fields of one visitor's session, shared by all its connections on this worker.

    Reading and assigning never wait. What changed, in place too (``session["cart"].append(…)``), is written
    by `flush`, which the gateway calls after each handler. Values: see `values.pack`; assigning anything else
    raises `SessionValueError`. `timeout`: seconds that a method waits at most for the store, and for its turn
    there before; then it raises `SessionUnavailable`. `clock` gives seconds and never goes back.
    """

    def __init__(
        self,
        id: SessionId,
        store: SessionStore,
        *,
        ttl: int,
        clock: Callable[[], float] = time.monotonic,
        touch_interval: float = TOUCH_SECONDS,
        timeout: float = 1.0,
    ) -> None:
        self.id = id
        self._store = store
        self._ttl = ttl
        self._clock = clock
        self._touch_interval = touch_interval
        self._timeout = timeout
        self._extended_at: float | None = None  # None: not stored, or nobody knows when
        # What the store has, as far as we know.
        self._stored: dict[str, bytes] = {}
        # Values in use: assigned, or unpacked when first read. Those that can change in place are compared at
        # flush.
        self._live: dict[str, Any] = {}
        self._assigned: set[str] = set()
        self._removed: set[str] = set()
        self._is_stored = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Session of {len(self)} fields>"  # never the id: it is a credential, and reprs reach logs

    # The mapping

    def __getitem__(self, field: str) -> Any:
        if field in self._live:
            return self._live[field]
        if field in self._removed:
            raise KeyError(field)
        value = unpack(field, self._stored[field])
        self._live[field] = value
        return value

    def __setitem__(self, field: str, value: Any) -> None:
        self._check_room_for(field)
        pack(field, value)
        self._live[field] = value
        self._assigned.add(field)
        self._removed.discard(field)

    def __delitem__(self, field: str) -> None:
        if field not in self:
            raise KeyError(field)
        self._live.pop(field, None)
        self._assigned.discard(field)
        # Even one that is not stored: it may be on its way into the store right now.
        self._removed.add(field)

    def __contains__(self, field: object) -> bool:
        return field in self._live or (field in self._stored and field not in self._removed)

    def __iter__(self) -> Iterator[str]:
        yield from [field for field in self._stored if field not in self._removed]
        yield from [field for field in self._live if field not in self._stored]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    # The store

    @property
    def is_new(self) -> bool:
        """Whether nothing is stored under this id."""
        return not self._is_stored

    @property
    def is_dirty(self) -> bool:
        """Whether `flush` has something to write."""
        changed, refused = self._changes()
        return bool(changed or refused or self._removals())

    @property
    def is_touch_due(self) -> bool:
        """Whether it is stored and its life was not extended for `touch_interval`."""
        return self._is_stored and (
            self._extended_at is None or self._clock() - self._extended_at >= self._touch_interval
        )

    async def flush(self) -> None:
        """Write what changed since the last time, in one go, and extend the life. Without changes: `touch`.

        Nothing is stored for a new session that nobody wrote to. Raises `SessionUnavailable`: all stays dirty
        and is tried again next time. Raises `SessionValueError`, once, when a value was changed in place into
        something that cannot be kept: its field is again what is stored, or gone; the other fields are
        written, or stay dirty if the store is away too.
        """
        refused = self._give_up_refused()
        try:
            async with self._exchange():
                await self._flush()
        except SessionUnavailable as error:
            if refused is not None:
                raise refused from error
            raise
        if refused is not None:
            raise refused

    async def increment(self, field: str, by: int = 1) -> int:
        """Add `by` to an integer field in the store, atomically across all workers; the new value.

        A missing field counts from 0. Raises `SessionUnavailable` (it may have been added or not) and
        `SessionValueError` (the field holds no integer, or would leave ±2**53 - 1; nothing was added).
        """
        self._check_room_for(field)
        if type(by) is not int or abs(by) > MAX_INTEGER:
            raise SessionValueError(f"a session field is incremented by an integer within ±{MAX_INTEGER}")
        async with self._exchange():
            if field in self._assigned or field in self._removed:
                await self._flush()
            value = await self._store.increment(self.id, field, by, self._ttl)
            self._stored[field] = pack(field, value)
            if field not in self._assigned and field not in self._removed:  # nobody wrote to it meanwhile
                self._live[field] = value
            self._wrote()
            return value

    async def refresh(self) -> None:
        """Load again what is stored, and touch it. Fields that are not flushed yet survive. Raises
        `SessionUnavailable`."""
        async with self._exchange():
            loaded = await self._store.load(self.id)
            was_stored = self._stored
            changed, refused = self._changes()
            self._is_stored = loaded is not None
            self._stored = {} if loaded is None else loaded
            # Objects that handlers hold stay the session's own where nobody else wrote to their field.
            self._live = {
                field: value
                for field, value in self._live.items()
                if field in changed or field in refused or self._stored.get(field) == was_stored.get(field)
            }
            self._assigned &= self._live.keys()
            self._removed &= self._stored.keys()
            if loaded is None:
                self._extended_at = None
            try:
                await self._touch()  # loaded late in its life, it would end under who loaded it
            except SessionUnavailable as error:
                # What was read is good all the same (a replica reads, but can't write). The touch stays due.
                log.debug("a loaded session was not touched: %s", error)

    async def touch(self) -> None:
        """Extend the life of a stored session, at most once in `touch_interval`. Raises
        `SessionUnavailable`."""
        if not self.is_touch_due:
            return  # without waiting for its turn
        async with self._exchange():
            await self._touch()

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        """One exchange with the store at a time: answers on different connections may overtake each other.

        One deadline for all that meet at a store that doesn't answer: the wait for the turn counts too.
        """
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                yield
        except TimeoutError as error:
            raise SessionUnavailable(f"the session's turn at the store took longer than {self._timeout:g} s") from error

    async def _flush(self) -> None:
        changed, _ = self._changes()  # what is refused is told by its own handler's flush
        self._removed &= self._stored.keys()
        removed = self._removals()
        if changed or removed:
            await self._write(changed, removed)
        else:
            self._assigned.clear()  # to what is stored already
            await self._touch()

    async def _write(self, changed: dict[str, bytes], removed: set[str]) -> None:
        """Write, and then take as stored what was written; what the application did meanwhile stays dirty."""
        assigned, self._assigned = self._assigned, set()
        try:
            await self._store.write(self.id, changed, removed, self._ttl)
        except BaseException:
            # It may have been written all the same: nothing is known of these fields.
            self._stored.update(dict.fromkeys([*changed, *removed], _UNKNOWN))
            self._assigned |= assigned & self._live.keys()
            self._removed |= changed.keys() - self._live.keys()  # given up meanwhile
            raise
        self._stored.update(changed)
        for field in removed:
            self._stored.pop(field, None)
        self._removed -= removed
        self._wrote()

    async def _touch(self) -> None:
        if self.is_touch_due:
            now = self._clock()
            await self._store.touch(self.id, self._ttl)
            self._extended_at = now

    def _wrote(self) -> None:
        self._is_stored = bool(self._stored)
        self._extended_at = self._clock()

    # What changed

    def _changes(self) -> tuple[dict[str, bytes], dict[str, SessionValueError]]:
        """The packed values that differ from what is stored, and the fields that can't be packed any more."""
        changed: dict[str, bytes] = {}
        refused: dict[str, SessionValueError] = {}
        for field, value in self._live.items():
            if field not in self._assigned and is_immutable(value):
                continue
            try:
                packed = pack(field, value)
            except SessionValueError as error:
                refused[field] = error
                continue
            if packed != self._stored.get(field):
                changed[field] = packed
        return changed, refused

    def _give_up_refused(self) -> SessionValueError | None:
        """Forget values that cannot be packed any more: each would fail the flushes of all who share the session.

        What is stored takes their place, or nothing. The first one's error.
        """
        _, refused = self._changes()
        for field in refused:
            del self._live[field]
            self._assigned.discard(field)
            if self._stored.get(field, _UNKNOWN) == _UNKNOWN:
                self._removed.add(field)
        return next(iter(refused.values()), None)

    def _removals(self) -> set[str]:
        return self._removed & self._stored.keys()

    def _check_room_for(self, field: str) -> None:
        check_name(field)
        if field not in self and len(self) >= MAX_FIELDS:
            raise SessionValueError(f"a session keeps at most {MAX_FIELDS} fields")
