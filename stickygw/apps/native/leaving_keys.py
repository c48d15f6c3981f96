"""The application state of affinity keys on its way to another worker, at the one it leaves: `LeavingKeys`.

A key goes in two steps, so that its state is in one worker at any time: when all its connections rest, ``on_key_out``
gives its state, which is sent; when the other side has answered that ``on_key_in`` is done, its connections follow as
those without a key do. docs/explanation/live-move.md tells the whole; `coming_keys` is the other side.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

from stickygw.apps.native.connection import Connection
from stickygw.apps.native.key_state import MAX_KEY_STATE_BYTES, pack_key_state, text_of
from stickygw.apps.native.leaving_key import AWAY, Key, Step
from stickygw.apps.native.published import wait_published
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.errors import StateValueError
from stickygw.ipc.memory_file import send_state
from stickygw.ipc.move_link import MoveLink
from stickygw.wire.move import KeyState, KeyStays, MoveError, pages_of

log = logging.getLogger("stickygw.move")

CONNECTIONS_AT_A_TIME = 64
"""Further keys begin to leave while those that are under way have fewer connections; one without any counts as one."""

BYTES_AT_A_TIME = 4 * MAX_KEY_STATE_BYTES
"""Further keys begin to leave while the states that are sent and not answered for are shorter, and with them at most
one for each of `CONNECTIONS_AT_A_TIME`."""

ANSWER_SECONDS = 5.0
"""The other worker has so long for its answer, besides what ``on_key_in`` may take."""


class LeavingKeys:
    """One move's keys, of those that `belongs` names. Does nothing for an application without ``on_key_out``.

    `can_depart` says whether a connection's
    rooms are ready; `release` is given each connection whose key has gone before it; `on_changed` is called when
    `proceed` may do something. `grace_seconds` is for handlers that are at work, and for each of the hooks.
    """

    def __init__(
        self,
        runtime: Runtime,
        link: MoveLink,
        *,
        belongs: Callable[[bytes], bool],
        grace_seconds: float,
        can_depart: Callable[[Connection], bool],
        release: Callable[[Connection], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self._link = link
        self._belongs = belongs
        self._grace_seconds = grace_seconds
        self._can_depart = can_depart
        self._release = release
        self._on_changed = on_changed
        self._hooks = runtime.app.handlers
        self._keys: dict[bytes, Key] = {}
        self._unlisted: list[bytes] = []
        self._is_listed = False
        self._next: deque[Key] = deque()
        self._under_way: dict[bytes, Key] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.refused = 0
        """Connections that were closed, since the new code does not take their key's state."""
        self.closed = 0
        """Those that were closed, since their key has gone and they could not."""
        if self._hooks.key_out:
            runtime.leaving_keys.add(self)
            runtime.keys.listeners.append(self._opened)
            for key in runtime.keys:
                self._add(key)

    # Whose a connection is

    def has(self, connection: Connection) -> bool:
        """Whether it goes with its key, or not at all: it is held here."""
        key = self._key_of(connection)
        return key is not None and (key.step is not Step.TAKEN or connection in key.connections)

    def has_left(self, connection: Connection) -> bool:
        """Whether its key has gone: nothing of it may be handled here."""
        key = self._key_of(connection)
        return key is not None and key.step in AWAY

    def has_given(self, affinity: bytes) -> bool:
        """Whether its state is another worker's, or is on its way there."""
        key = self._keys.get(affinity)
        return key is not None and key.step in AWAY

    def stay(self, connection: Connection) -> None:
        """It does not go, and goes on: now, when its key is back, or, if another worker has its key, never."""
        key = self._key_of(connection)
        if key is None or key.step not in AWAY:
            connection.thaw()
        elif key.step is Step.TAKEN:
            self._close(connection)

    def refuse(self, connection: Connection) -> None:
        """The other side does not take it: it is closed."""
        key = self._key_of(connection)
        connection.thaw(goes_on=key is None or key.step not in AWAY)
        connection.shut(1012, "restarting")

    def left(self, connection: Connection) -> None:
        """The other side has it, or it is closed."""
        key = self._key_of(connection)
        if key is not None:
            key.connections.discard(connection)
            self._forget_if_gone(key)

    def _key_of(self, connection: Connection) -> Key | None:
        affinity = connection.affinity_key
        return None if affinity is None else self._keys.get(affinity)

    # Step by step

    @property
    def is_done(self) -> bool:
        """Whether all that is known has gone, or stays."""
        return not self._next and not self._under_way

    def proceed(self) -> None:
        """Do what can be done now."""
        if self._unlisted or not self._is_listed:
            for page in pages_of(self._unlisted):
                self._link.send(page)
            self._unlisted, self._is_listed = [], True
        self._begin_some()
        now = self._loop.time()
        for key in tuple(self._under_way.values()):
            if key.step is Step.RESTING:
                self._hold(key)
                if key.until <= now or self._is_at_rest(key):
                    self._leave(key)
            elif key.step is Step.SENT and key.until <= now:
                log.error("move: the next worker has not answered for the state of a key; its connections are closed")
                del self._under_way[key.key]

    @property
    def deadline(self) -> float | None:
        """When `proceed` has something to do at the latest, in the loop's time."""
        waits = [key.until for key in self._under_way.values() if key.step is not Step.LEAVING]
        return min(waits, default=None)

    def _opened(self, affinity: bytes) -> None:
        if affinity not in self._keys:
            self._add(affinity)
        self._on_changed()

    def _add(self, affinity: bytes) -> None:
        if self._belongs(affinity):
            self._unlisted.append(affinity)
            self._keys[affinity] = key = Key(affinity)
            self._next.append(key)

    def _begin_some(self) -> None:
        count = sum(max(1, len(key.connections)) for key in self._under_way.values())
        size = sum(key.size for key in self._under_way.values())
        while self._next and count < CONNECTIONS_AT_A_TIME and size < BYTES_AT_A_TIME:
            key = self._next.popleft()
            key.step, key.until = Step.RESTING, self._loop.time() + self._grace_seconds
            self._under_way[key.key] = key
            self._hold(key)
            count += max(1, len(key.connections))

    def _hold(self, key: Key) -> None:
        """Those too that have opened since the last look."""
        here = self._runtime.keys.connections_of(key.key)
        for connection in here:
            if connection not in key.connections:
                connection.hold(self._on_changed)
        key.connections = set(here)

    def _is_at_rest(self, key: Key) -> bool:
        return not self._runtime.keys.is_opening(key.key) and all(map(self._is_waited_for_no_more, key.connections))

    def _is_waited_for_no_more(self, connection: Connection) -> bool:
        if connection.can_move:
            return connection.is_at_rest and self._can_depart(connection)
        if connection.receiver.closed is not None:
            connection.hold(self._on_changed)  # when its on_disconnect is done, it is none of the key's
            return False
        return connection.receiver.is_coroutine or connection.is_at_rest

    def _leave(self, key: Key) -> None:
        if key.key not in self._runtime.keys:  # its time is over, or a handshake came to nothing
            key.step = Step.STAYS
            del self._under_way[key.key]
            self._link.send(KeyStays(key.key))
            return
        key.step = Step.LEAVING
        key.kept = {each for each in key.connections if not (each.can_move and each.is_at_rest)}
        self._spawn(self._send(key))

    async def _send(self, key: Key) -> None:
        try:
            async with asyncio.timeout(self._grace_seconds):
                for function in self._hooks.key_out:
                    key.values.append(await settled(function(text_of(key.key))))
            state = pack_key_state(key.values)
        except StateValueError as error:
            log.error("a key stays, and its connections: %s", error)
            await self._stay(key)
            return
        except Exception:
            log.exception("on_key_out raised; the key stays, and its connections")
            await self._stay(key)
            return
        await wait_published(self._runtime.bridge)  # what its next worker publishes comes behind it
        if self._is_over or self._link.is_closed:
            await self._return(key)
            return
        try:
            send_state(self._link, partial(KeyState, key.key), state)
        except (MoveError, OSError) as error:
            log.error("a key stays, and its connections: %s", error)
            await self._stay(key)
            return
        key.step, key.size = Step.SENT, len(state)
        key.until = self._loop.time() + self._grace_seconds + ANSWER_SECONDS
        self._on_changed()

    async def _stay(self, key: Key) -> None:
        await self._return(key)
        self._under_way.pop(key.key, None)
        self._link.send(KeyStays(key.key))
        self._on_changed()

    # What the other side answers

    def taken(self, affinity: bytes) -> None:
        """Its state is there."""
        key = self._answered(affinity)
        if key is None:
            return
        key.step = Step.TAKEN
        self._runtime.keys.went(affinity)
        for connection in tuple(key.connections):
            if connection in key.kept:
                self._close(connection)
            else:
                self._release(connection)
        self._forget_if_gone(key)

    def refuse_key(self, affinity: bytes, why: str) -> None:
        """The new code does not take it."""
        key = self._answered(affinity)
        if key is not None:
            log.warning("move: the new code does not take the state of a key: %s", why)
            key.step = Step.RETURNING
            self._spawn(self._return(key, is_refused=True))

    def _answered(self, affinity: bytes) -> Key | None:
        key = self._keys.get(affinity)
        if key is None or key.step is not Step.SENT:
            return None
        self._under_way.pop(affinity, None)
        return key

    def _close(self, connection: Connection) -> None:
        """Its key is another worker's: whoever comes back finds it there."""
        connection.thaw(goes_on=False)
        if connection.is_open:
            self.closed += 1
        connection.close(1012, "restarting")
        self.left(connection)

    def _forget_if_gone(self, key: Key) -> None:
        if key.step is Step.TAKEN and not key.connections:
            key.values = []
            self._runtime.keys.went(key.key)

    # Back

    async def _return(self, key: Key, *, is_refused: bool = False) -> None:
        """Give the application here what it has given; then its connections go on, or are closed."""
        key.step = Step.RETURNING
        if any(value is not None for value in key.values[len(self._hooks.key_in) :]):
            log.error("move: there is no on_key_in for what on_key_out has returned, and could not go")
        try:
            async with asyncio.timeout(self._grace_seconds):
                for function, value in zip(self._hooks.key_in, key.values, strict=False):
                    await settled(function(text_of(key.key), value))
        except Exception:
            log.exception("on_key_in raised with what on_key_out had returned here; the key's connections are closed")
            is_lost = True
        else:
            is_lost = False
        key.step, key.values = Step.STAYS, []
        self._runtime.keys.came(key.key)
        for connection in key.connections:
            if is_refused and connection.is_open:
                self.refused += 1
            connection.thaw()
            if is_refused or is_lost:
                connection.shut(1012, "restarting")
        self._on_changed()

    def stop(self) -> None:
        """No further state goes. Idempotent."""
        self._is_over = True
        self._next.clear()
        if self._opened in self._runtime.keys.listeners:
            self._runtime.keys.listeners.remove(self._opened)
        for key in self._keys.values():
            if key.step is Step.RESTING:
                key.step = Step.STAYS
                for connection in key.connections:
                    connection.go_on()

    def end(self, unsent: Collection[bytes]) -> None:
        """The move is over. `unsent` are keys whose state is not on its way after all; one whose state is, is the other
        side's, unless that has died."""
        self.stop()
        for key in self._keys.values():
            has_died = self._link.is_closed and (key.step is Step.SENT or (key.step is Step.TAKEN and key.connections))
            if has_died or (key.step is Step.SENT and key.key in unsent):
                key.step = Step.RETURNING  # now: until it is back, none of its connections goes on
                self._spawn(self._return(key))
            elif key.step is Step.SENT:
                key.step = Step.TAKEN
                for connection in tuple(key.connections):
                    self._close(connection)

    async def wait_returned(self) -> None:
        """Return when no hook runs any more, which `grace_seconds` bounds."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._runtime.spawn(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
