"""One session as the application sees it: its fields, and the exchanges with the store that save them. `Session`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from stickygw.errors import SessionEnded, SessionUnavailable, SessionValueError
from stickygw.sessions.base import MAX_INTEGER, Loaded, SessionConflict, SessionGone, SessionStore
from stickygw.sessions.conflicts import retried
from stickygw.sessions.exchanges import Exchanges
from stickygw.sessions.fields import Fields
from stickygw.sessions.leases import leased
from stickygw.sessions.outage import Outage
from stickygw.sessions.values import pack, unpack
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

TOUCH_SECONDS = 60.0
"""The time to live is extended at most so often by use alone."""

REMEMBER_SECONDS = 90 * 86_400
"""So long the id of a destroyed session is refused; no cookie may live longer."""


class Session(Fields):
    """The fields of one visitor's session, shared by all its connections on this worker.

    Reading and assigning never wait. What changed, in place too (``session["cart"].append(…)``), is written
    by `save`, which the gateway does after each handler. Values: see `values.pack`; assigning anything else
    raises `SessionValueError`.

    Once the session has ended (`is_ended`), every write raises `SessionEnded`; reads go on with what was loaded.

    `timeout`: seconds that a method waits at most for the store, and for its turn there before; then it raises
    `SessionUnavailable`. `remember`: seconds for which `destroy` makes the id worthless, those of the longest
    cookie. `clock` gives seconds and never goes back, `jitter` numbers from 0 to 1. `queue` is called with the
    session when the store does not answer its `save`: whether what is dirty will be written later. `outage` is shared
    by all sessions of a store.
    """

    def __init__(
        self,
        id: SessionId,
        store: SessionStore,
        *,
        ttl: int,
        remember: int = REMEMBER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        touch_interval: float = TOUCH_SECONDS,
        timeout: float = 1.0,
        jitter: Callable[[], float] = random.random,
        queue: Callable[[Session], bool] | None = None,
        outage: Outage | None = None,
    ) -> None:
        super().__init__()
        self.id = id
        self._store = store
        self._ttl = ttl
        self._remember = remember
        self._clock = clock
        self._touch_interval = touch_interval
        self._outage = Outage(clock) if outage is None else outage
        self._exchanges = Exchanges(timeout, self._outage)
        self._jitter = jitter
        self._extended_at: float | None = None  # None: not stored, or nobody knows when
        self._is_stored = False
        self._ended: type[SessionEnded] | None = None
        self._is_stale = False
        self._queue = queue
        self.is_queued = False
        """Set by the queue while whatever is dirty is written by it, so that `flush` needs no answer of the store."""

    def __repr__(self) -> str:
        return f"<Session of {len(self)} fields>"  # never the id: it is a credential, and reprs reach logs

    # What it is

    @property
    def is_new(self) -> bool:
        """Whether nothing is stored under this id."""
        return not self._is_stored

    @property
    def is_ended(self) -> bool:
        """Whether it was destroyed or replaced, or is stored no more, as far as we know."""
        return self._ended is not None

    @property
    def is_stale(self) -> bool:
        """Whether somebody else has, perhaps, written to it since it was loaded."""
        return self._is_stale

    @property
    def is_touch_due(self) -> bool:
        """Whether it is stored, its life was not extended for `touch_interval`, and the store is not away."""
        return (
            self._is_stored
            and (self._extended_at is None or self._clock() - self._extended_at >= self._touch_interval)
            and not self._outage.is_on
        )

    def adopt(
        self,
        *,
        is_stored: bool,
        stored: Mapping[str, bytes],
        unsaved: Mapping[str, bytes | None],
        touched_seconds: float | None,
        is_stale: bool,
    ) -> None:
        """Go on with what another process had of it (`carried`, `touched_seconds`)."""
        self.carry_on(stored, unsaved)
        self._is_stored, self._is_stale = is_stored, is_stored and is_stale
        self._extended_at = None if touched_seconds is None else self._clock() - touched_seconds

    @property
    def touched_seconds(self) -> float | None:
        """How long ago its life was extended; None: it is not stored, or nobody knows."""
        return None if self._extended_at is None else max(0.0, self._clock() - self._extended_at)

    def mark_stale(self) -> None:
        """Somebody else may have written to it: `refresh` is due."""
        self._is_stale = True

    # Reading

    async def refresh(self) -> None:
        """Load again what is stored, and touch it. Fields that are not saved yet survive. Raises
        `SessionUnavailable` and `SessionEnded`."""
        async with self.exchange():
            await self._refresh()

    async def look(self) -> bool:
        """Whether somebody else has written to it: it is stale then, and only then. What was loaded stays as it is.

        Raises `SessionUnavailable` and `SessionEnded`.
        """
        async with self.exchange():
            loaded = await self._load()
            self._is_stale = ({} if loaded is None else loaded.fields) != self._stored
            return self._is_stale

    # Writing

    async def save(self) -> None:
        """Write what changed since the last time, in one go, and extend the life; a life that cannot be extended now is
        no error.

        Nothing is stored for a new session that nobody wrote to. Raises `SessionUnavailable`: all stays dirty
        and is tried again next time. With the setting ``session.store_down = "queue"`` it is queued instead, while
        there is room, and written when the store is back; what memory cannot answer (`refresh`, `increment`,
        `update_atomically`, `lock`, `destroy`) raises all the same. Raises `SessionEnded`: it stays unwritten. Raises
        `SessionValueError`, once, when a value was changed in place into something that cannot be kept: its field is
        again what is stored, or gone; the other fields are written, or stay dirty if the store is away too.
        """
        await self.flush()

    async def flush(self, *, may_queue: bool = True) -> None:
        """See `save`. Without `may_queue` it raises `SessionUnavailable` whatever the settings are."""
        refused = self._give_up_refused()
        try:
            await self._save(may_queue)
        except (SessionUnavailable, SessionEnded) as error:
            if refused is not None:
                raise refused from error
            raise
        if refused is not None:
            raise refused

    async def write_changes(self) -> None:
        """Write what changed and can be kept: of the rest its own handler is told. Raises as `save` does."""
        async with self.exchange():
            await self._flush()

    async def increment(self, field: str, by: int = 1) -> int:
        """Add `by` to an integer field in the store, atomically across all workers; the new value.

        A missing field counts from 0. Raises `SessionUnavailable` (it may have been added or not),
        `SessionEnded`, and `SessionValueError` (the field holds no integer, or would leave ±2**53 - 1; nothing
        was added).
        """
        self._check_room_for(field)
        if type(by) is not int or abs(by) > MAX_INTEGER:
            raise SessionValueError(f"a session field is incremented by an integer within ±{MAX_INTEGER}")
        async with self.exchange():
            self._check_not_ended()
            if self._is_changed(field):
                await self._flush()
            with self._stale_if_unknown():
                value = await self._store.increment(self.id, field, by, self._ttl, is_new=self.is_new)
            self._wrote_value(field, value, pack(field, value))
            return value

    async def update_atomically(
        self, field: str, function: Callable[[Any], Any], *, default: Any = None, attempts: int = 64
    ) -> Any:
        """Make a field what `function` makes of it, so that no other worker's change is lost; the new value.

        `function` is given what is stored now, its own to change, or `default`, and is called again, up to
        `attempts` times in all, when somebody else was faster. It must not wait. Raises `SessionUnavailable`
        (somebody else was always faster, or the store does not answer: then it may have been written or not),
        `SessionEnded`, `SessionValueError`, and what `function` raises.
        """
        self._check_room_for(field)

        async def attempt() -> Any:
            async with self.exchange():
                return await self._update(field, function, default)

        try:
            return await retried(attempt, attempts=attempts, jitter=self._jitter)
        except SessionConflict as error:
            raise SessionUnavailable(
                f"others changed session field {field!r} at each of {attempts} attempts"
            ) from error

    async def touch(self) -> None:
        """Extend the life of a stored session, at most once in `touch_interval`. Raises
        `SessionUnavailable` and `SessionEnded`."""
        if not self.is_touch_due:
            return  # without waiting for its turn
        async with self.exchange():
            await self._touch()

    async def destroy(self) -> None:
        """End the session on all workers: what is stored of it is deleted, and its id is worthless from now on.

        What was not saved yet is given up. Idempotent. Raises `SessionUnavailable`: it may have ended or not.
        """
        async with self.exchange():
            await self._store.end(self.id, self._remember)
            self._give_up_refused()
            changed, _ = self._changes()
            self.ended(changed, self._removals())

    @asynccontextmanager
    async def lock(self, seconds: float = 10.0, *, wait: float = 5.0) -> AsyncIterator[None]:
        """Have the session for this block alone, among all workers that lock it, not among those that don't.

        At its beginning the session is refreshed, at its end saved (never queued). A block that takes more than
        `seconds` has it alone no longer. Raises `TimeoutError` when others have it for `wait` seconds, give or take one
        answer of the store, and what `refresh` and `save` do.
        """
        async with leased(self._store, self.id, seconds, wait=wait, clock=self._clock, jitter=self._jitter) as lease:
            await self.refresh()
            lease.before_release = partial(self.flush, may_queue=False)  # before anybody else has the lock
            yield

    # For whoever moves it to another id

    def unsaved(self) -> tuple[dict[str, bytes], set[str]]:
        """What `save` would set and remove. Raises `SessionValueError`, once, as that does."""
        if (refused := self._give_up_refused()) is not None:
            raise refused
        changed, _ = self._changes()
        return changed, self._removals()

    def stored(self, fields: dict[str, bytes]) -> None:
        """All this was stored just now, and nothing else."""
        self._take_loaded(fields)
        self._wrote()

    def ended(self, changed: Mapping[str, bytes] | None = None, removed: Collection[str] = ()) -> None:
        """It has ended, and these of its unsaved changes nobody has to write any more."""
        self._take_as_stored(changed or {}, removed)
        self._end()

    # One exchange with the store

    @asynccontextmanager
    async def exchange(self) -> AsyncIterator[None]:
        """One exchange with the store: no other write of ours is under way in this block. Raises `SessionUnavailable`
        when its turn, or the block, takes too long."""
        try:
            async with self._exchanges.next():
                yield
        except SessionEnded as error:
            self._end(type(error))
            raise

    async def _load(self) -> Loaded | None:
        """What is stored; None: nothing. One that was, and is no more, has ended."""
        self._check_not_ended()
        loaded = await self._store.load(self.id)
        if loaded is None and self._is_stored:
            raise SessionGone("nothing is stored of the session any more")
        return loaded

    async def _refresh(self) -> None:
        was_stale, self._is_stale = self._is_stale, False  # what is written from now on, the load may miss
        try:
            loaded = await self._load()
        except BaseException:
            self._is_stale |= was_stale
            raise
        self._take_loaded({} if loaded is None else loaded.fields)
        self._is_stored = loaded is not None
        if loaded is not None and loaded.seconds_left is not None:
            self._extended_at = self._clock() - max(0.0, self._ttl - loaded.seconds_left)
        try:
            await self._touch()  # loaded late in its life, it would end under who loaded it
        except SessionUnavailable as error:
            # What was read is good all the same (a replica reads, but can't write). The touch stays due.
            log.debug("a loaded session was not touched: %s", error)

    async def _save(self, may_queue: bool) -> None:
        if may_queue and self.is_queued and not self.is_ended:
            return
        try:
            await self.write_changes()
        except SessionUnavailable as error:
            if self.is_dirty and not (may_queue and self._queue is not None and self._queue(self)):
                raise
            log.debug("a session is not written, or touched, now: %s", error)

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
        self._check_not_ended()
        assigned, self._assigned = self._assigned, set()
        try:
            await self._store.write(self.id, changed, removed, self._ttl, is_new=self.is_new)
        except BaseException:
            self._take_as_unknown(changed, removed, assigned)
            raise
        self._take_as_stored(changed, removed)
        self._wrote()

    async def _update(self, field: str, function: Callable[[Any], Any], default: Any) -> Any:
        """One attempt. Raises `SessionConflict`, having learnt what is stored."""
        self._check_not_ended()
        if self._is_changed(field):
            await self._flush()
        stored = self._stored.get(field)
        value = function(default if stored is None else unpack(field, stored))
        packed = pack(field, value)
        try:
            with self._stale_if_unknown():
                await self._store.write(
                    self.id, {field: packed}, (), self._ttl, is_new=self.is_new, expected={field: stored}
                )
        except SessionConflict as conflict:
            self._take_value(field, conflict.current[field])
            raise
        self._wrote_value(field, value, packed)
        return value

    async def _touch(self) -> None:
        if self.is_touch_due:
            now = self._clock()
            if not await self._store.touch(self.id, self._ttl):
                raise SessionGone("nothing is stored of the session any more")
            self._extended_at = now

    # What came of it

    @contextmanager
    def _stale_if_unknown(self) -> Iterator[None]:
        """Of a change without an answer nobody knows whether it was made: the store is asked next time."""
        try:
            yield
        except (SessionUnavailable, asyncio.CancelledError):
            self._is_stale = True
            raise

    def _wrote_value(self, field: str, value: Any, packed: bytes) -> None:
        """The store has a new value in one field, which is in use now unless the application wrote meanwhile."""
        if not self._is_changed(field):
            self._live[field] = value
        self._stored[field] = packed
        self._wrote()

    def _wrote(self) -> None:
        self._is_stored = True
        self._extended_at = self._clock()

    def _end(self, how: type[SessionEnded] = SessionEnded) -> None:
        self._ended, self._is_stored, self._is_stale = how, False, False

    def _check_not_ended(self) -> None:
        if self._ended is not None:
            raise self._ended("the session has ended")
