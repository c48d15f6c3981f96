"""The sessions in use on this worker, one object for each id: `Sessions`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.observability.counters import Counters
from stickygw.sessions.base import SessionGone, SessionStore
from stickygw.sessions.holders import Holder, Holders
from stickygw.sessions.looks import Looks
from stickygw.sessions.moves import move
from stickygw.sessions.outage import Outage
from stickygw.sessions.session import REMEMBER_SECONDS, TOUCH_SECONDS, Session
from stickygw.sessions.touches import keep_touching
from stickygw.sessions.write_back import WriteBack
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

SWEEP_SECONDS = 0.5
"""How exactly the lifetimes of watched sessions are kept."""

LATELY_SECONDS = 10.0
"""The answer that ended a session, and gives its client another one, is on its way for so long at most."""


MAX_REMEMBERED = 100_000
"""Sessions that are written to while others come from another worker; beyond, all that come count as written to."""


def new_session_id() -> SessionId:
    """An id that nobody can guess."""
    return SessionId(secrets.token_hex(16))


@dataclass(slots=True)
class _Entry:
    session: Session
    users: int = 0
    is_loaded: bool = False
    loading: asyncio.Task[None] | None = None
    carried: dict[str, bytes | None] = field(default_factory=dict)
    """What another worker could not save, as it has said last: see `Sessions.adopt`."""


class Sessions:
    """Connections of one visitor share one `Session` object: reads cost no round trip, and they see each
    other's writes.

    Between `start` and `stop` a stored session lives as long as it is in use, however quiet its connections
    are: its life is extended every `touch_interval` seconds, which is a quarter of its `ttl` and at most
    `TOUCH_SECONDS` if not given. `timeout` and `clock`: see `Session`.

    What others write is learnt from `invalidated`. `is_tracked` says whether that is told of every write just
    now: then what is in use is not loaded again when it is opened. `lifetime`: seconds after which a session is
    over for a client, used or not, from when its cookie was signed; `now` is in Unix seconds. Counts
    ``sessions_invalidated`` (in use, and written to elsewhere), ``sessions_ended`` (holders that were told, because
    it ``ended``, or its ``lifetime`` is over) and ``session_reads_failed`` (a handler went on with an old copy).

    While the store is away, who comes to a session that is in memory has it as it is there. `queue_writes`: what the
    store does not take is kept and written when it is back (`WriteBack`).

    Its size is that of the connections and requests that hold a session, which are bounded elsewhere, and of the queue.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        ttl: int,
        clock: Callable[[], float] = time.monotonic,
        touch_interval: float | None = None,
        timeout: float = 1.0,
        lifetime: int = REMEMBER_SECONDS,
        now: Callable[[], float] = time.time,
        is_tracked: Callable[[], bool] = lambda: False,
        counters: Counters | None = None,
        queue_writes: bool = False,
    ) -> None:
        self._store = store
        self._ttl = ttl
        self._lifetime = lifetime
        self._now = now
        self._is_tracked = is_tracked
        self._counters = Counters() if counters is None else counters
        self._clock = clock
        self._touch_interval = min(TOUCH_SECONDS, ttl / 4) if touch_interval is None else touch_interval
        self._timeout = timeout
        self._entries: dict[SessionId, _Entry] = {}
        self._holders = Holders()
        self._looks = Looks(self._look)
        self._queues_writes = queue_writes
        self._queue = WriteBack(counters=self._counters, on_left=self._left_queue, timeout=timeout)
        self._outage = Outage(clock)
        self._expecting = 0
        self._invalidated_lately: set[SessionId | None] = set()  # None: perhaps any
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def session_count(self) -> int:
        """How many are in use, or wait for the store."""
        return len(self._entries)

    def start(self) -> None:
        """Keep the sessions in use alive and fresh, and tell of their ends, in tasks of its own."""
        self._looks.start()
        self._tasks = {
            asyncio.create_task(self._keep_alive(), name="session toucher"),
            asyncio.create_task(self._end_overdue(), name="session sweeper"),
        }

    async def stop(self) -> None:
        """End those tasks. What is queued is written, or lost and said to be."""
        await self._queue.stop()
        await self._looks.stop()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = set()

    # Users

    async def open(self, id: SessionId | None) -> Session:
        """The session of a visitor; None makes a new one, for which nothing is stored yet, and so does the id of
        one that has ended: compare `Session.id`.

        What is stored is loaded; of a session in use already, only if it may have changed. Opens of one id that
        meet share one load. Each open needs one `release`, unless it raised `SessionUnavailable`: the store is away,
        and the session is not in memory.
        """
        if id is None:
            return self._new()
        entry = self._entries.get(id)
        if entry is None:
            entry = self._entries[id] = _Entry(self._session(id))
        entry.users += 1
        try:
            await self._loaded(entry)
        except SessionEnded:
            self._leave(entry)
            return self._new()
        except BaseException:
            self._leave(entry)
            raise
        return entry.session

    def expect(self) -> None:
        """Sessions come from another worker: until `expect_no_more`, what is invalidated is remembered for them."""
        self._expecting += 1

    def expect_no_more(self) -> None:
        """To be called once for each `expect`."""
        self._expecting -= 1
        if not self._expecting:
            self._invalidated_lately.clear()

    def adopt(
        self,
        id: SessionId,
        *,
        is_stored: bool,
        stored: Mapping[str, bytes],
        unsaved: Mapping[str, bytes | None],
        touched_seconds: float | None,
        is_stale: bool,
    ) -> Session:
        """`open` for a connection that comes from another worker, with what that one had of the session
        (`Session.carried`). It never waits, and needs no store. Raises `SessionValueError`: that cannot be kept here.

        It is stale if it was there, or if it may have been written to since the first `expect`.
        """
        entry = self._entries.get(id)
        if entry is None:
            entry = _Entry(self._session(id), is_loaded=True)
            entry.session.adopt(
                is_stored=is_stored,
                stored=stored,
                unsaved=unsaved,
                touched_seconds=touched_seconds,
                is_stale=is_stale or not self._is_tracked() or not self._invalidated_lately.isdisjoint((id, None)),
            )
            self._entries[id] = entry  # not before: of one that cannot be taken nothing is left
            if None in self._invalidated_lately or id in self._invalidated_lately:
                self._looks.add([id], is_named=id in self._invalidated_lately)  # it may have ended
        else:
            entry.session.write_unsaved(entry.session.not_overwritten(unsaved, entry.carried))
        entry.carried = dict(unsaved)
        entry.users += 1
        return entry.session

    def moved(self, session: Session) -> None:
        """`release` for a connection that another worker has, and with it what was not saved: that is the other's."""
        entry = self._entries[session.id]
        self._leave(entry)
        if entry.users == 0:
            self._queue.forget(session)

    def release(self, session: Session) -> None:
        """An opener is done with `session`, which it has flushed. The last one drops it from memory, if it is not
        queued."""
        self._leave(self._entries[session.id])
        if session.id not in self._entries and session.is_dirty and not session.is_ended:
            log.warning("a session ends with fields that could not be saved")

    async def freshen(self, session: Session) -> None:
        """Load what others wrote to `session`, if they did. With the store away it stays as it is, and stale. Raises
        `SessionEnded`: somebody has ended it, and nobody is to be served any more as whom it names."""
        if not session.is_stale or self._outage.is_on:
            return
        try:
            await session.refresh()
        except SessionUnavailable as error:
            self._counters.add("session_reads_failed")
            log.warning("a session goes on with what was loaded of it: %s", error)
        except SessionGone:
            self._found_ended(session.id)
        except SessionEnded:
            self._tell_ended(session.id)
            raise

    async def regenerate(self, session: Session) -> Session:
        """A new session with the fields of `session`, under a new id; the old id is dead at once.

        So whoever had planted the old id has nothing of it. The caller has to `release` both: other users keep
        the old one, which has ended. Raises what `moves.move` does; then the old one is still the visitor's, unless
        it has ended.
        """
        new = self._new()
        try:
            await move(session, new, self._store, ttl=self._ttl, remember=self._lifetime)
        except BaseException:
            self.release(new)
            raise
        return new

    async def ended_lately(self, id: SessionId) -> bool:
        """Whether the session was ended in the last `LATELY_SECONDS`. Raises `SessionUnavailable`."""
        return await self._store.ended_within(id, self._lifetime, LATELY_SECONDS)

    # Holders

    def watch(
        self, id: SessionId, on_ended: Callable[[], None], *, issued: float = 0, ends_at: float | None = None
    ) -> Holder:
        """Call `on_ended` once when the session ends, here or anywhere else, or its `lifetime` is over since `issued`
        (Unix seconds; 0: since now), or it is `ends_at`; not when the store comes back without its data.

        It must neither wait nor raise. It needs one `unwatch`.
        """
        holder = Holder(id, on_ended, (issued or self._now()) + self._lifetime if ends_at is None else ends_at)
        self._holders.add(holder)
        entry = self._entries.get(id)
        if entry is None or entry.session.is_ended:
            self._looks.add([id], is_named=False)  # nobody has listened for it: it may have ended before now
        return holder

    def unwatch(self, holder: Holder) -> None:
        """`holder` needs no call any more. Idempotent."""
        self._holders.discard(holder)

    def watched_by(self, id: SessionId) -> int:
        """How many watch this session: its open WebSockets."""
        return self._holders.count_of(id)

    # What others do

    def invalidated(self, ids: Iterable[SessionId] | None) -> None:
        """Somebody, we perhaps, has written to these sessions, or ended them; None: perhaps to any.

        Those in use, or watched, are looked at: the echo of our own writes makes nothing stale.
        """
        if ids is not None:
            ids = tuple(ids)
        if self._expecting:
            self._remember_invalidated(ids)
        if ids is None:
            self._outage.end()  # the store answers
            self._queue.wake()
            for entry in self._entries.values():
                entry.session.mark_stale()
            self._looks.add([*self._entries, *self._holders], is_named=False)
        else:
            self._looks.add([id for id in ids if id in self._entries or id in self._holders], is_named=True)

    def _remember_invalidated(self, ids: Iterable[SessionId] | None) -> None:
        self._invalidated_lately.update((None,) if ids is None else ids)
        if len(self._invalidated_lately) > MAX_REMEMBERED:
            self._invalidated_lately = {None}

    async def _look(self, id: SessionId, is_named: bool) -> None:
        entry = self._entries.get(id)
        try:
            if entry is not None:
                await self._compare(entry.session)
            elif id in self._holders and await self._store.load(id) is None and is_named:
                self._tell_ended(id)  # it expired, or was deleted
        except SessionEnded:
            # A store that is back without its data has not ended anybody's session: nothing is closed for that, until
            # somebody writes to it.
            if is_named or await self._was_ended(id):
                self._tell_ended(id)

    def _tell_ended(self, id: SessionId) -> None:
        if told := self._holders.tell(id):
            self._counters.add("sessions_ended", "ended", told)

    async def _was_ended(self, id: SessionId) -> bool:
        """Whether somebody ended the session; not so if it is only stored no more."""
        try:
            await self._store.load(id)
        except SessionEnded:
            return True
        return False

    async def _compare(self, session: Session) -> None:
        try:
            if await session.look():
                self._counters.add("sessions_invalidated")
        except SessionUnavailable:
            session.mark_stale()
            raise

    async def _end_overdue(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if overdue := self._holders.tell_overdue(self._now()):
                self._counters.add("sessions_ended", "lifetime", overdue)

    # Loads

    def _new(self) -> Session:
        session = self._session(new_session_id())
        self._entries[session.id] = _Entry(session, users=1, is_loaded=True)
        return session

    async def _loaded(self, entry: _Entry) -> None:
        """Return when `entry` has what is stored. Raises `SessionUnavailable` and `SessionEnded`."""
        if entry.session.is_ended:
            raise SessionEnded("the session has ended")
        if entry.loading is None:
            if self._is_current(entry) or (entry.is_loaded and self._outage.is_on):
                return
            # A task of its own: an opener that is cancelled must not take the load from the others.
            entry.loading = asyncio.create_task(self._load(entry))
            entry.loading.add_done_callback(_retrieve)
        loading = entry.loading
        await asyncio.wait({loading})
        try:
            loading.result()
        except SessionUnavailable:
            if not entry.is_loaded:
                raise  # nobody knows what is in it; of one that is in memory, what is read goes on

    def _is_current(self, entry: _Entry) -> bool:
        if entry.session.is_queued:
            return True  # it waits for a store that is away: its turn comes before any load
        return (
            entry.is_loaded
            and self._is_tracked()
            and not entry.session.is_stale
            and entry.session.id not in self._looks
        )

    def _session(self, id: SessionId) -> Session:
        return Session(
            id,
            self._store,
            ttl=self._ttl,
            remember=self._lifetime,
            clock=self._clock,
            touch_interval=self._touch_interval,
            timeout=self._timeout,
            queue=self._keep_queued if self._queues_writes else None,
            outage=self._outage,
        )

    def _keep_queued(self, session: Session) -> bool:
        """Whether what `session` has to write is kept for later."""
        entry = self._entries.get(session.id)
        is_in_use = entry is not None and entry.session is session  # or the next to open it would not see what waits
        return is_in_use and self._queue.add(session)

    def _left_queue(self, session: Session) -> None:
        if session.is_ended:
            self._found_ended(session.id)
        if self._entries[session.id].users == 0:
            del self._entries[session.id]

    async def _keep_alive(self) -> None:
        await keep_touching(
            self._touches_due, interval=self._touch_interval, outage=self._outage, on_ended=self._found_ended
        )

    def _touches_due(self) -> dict[SessionId, Callable[[], Awaitable[None]]]:
        due: dict[SessionId, Callable[[], Awaitable[None]]] = {
            id: partial(self._touch_watched, id) for id in self._holders if id not in self._entries
        }
        return due | {id: entry.session.touch for id, entry in self._entries.items() if entry.session.is_touch_due}

    async def _touch_watched(self, id: SessionId) -> None:
        """Of a WebSocket whose session nobody has opened. It may be a new one, of which nothing is stored."""
        await self._store.touch(id, self._ttl)

    def _found_ended(self, id: SessionId) -> None:
        """Whoever holds it is told, if somebody has ended it."""
        self._looks.add([id], is_named=False)

    async def _load(self, entry: _Entry) -> None:
        try:
            await entry.session.refresh()
            entry.is_loaded = True
        finally:
            entry.loading = None

    def _leave(self, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0 and entry.session.id not in self._queue:
            del self._entries[entry.session.id]


def _retrieve(loading: asyncio.Task[None]) -> None:
    """Look at the outcome of a load whose openers may all be gone: a failure that nobody needs is no defect."""
    if not loading.cancelled():
        loading.exception()
