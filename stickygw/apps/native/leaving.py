"""Gives this worker's connections to another one: `Leaving`. docs/explanation/live-move.md tells the whole."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from stickygw.apps.native.carried import NotCarried
from stickygw.apps.native.connection import Connection
from stickygw.apps.native.leaving_keys import LeavingKeys
from stickygw.apps.native.move_outs import MoveOuts
from stickygw.apps.native.published import wait_published
from stickygw.apps.native.runtime import Runtime
from stickygw.bridge.departures import Departure
from stickygw.ipc.memory_file import read_copy, send_copy, send_state
from stickygw.ipc.move_link import MoveLink
from stickygw.types import HandOverId
from stickygw.wire.move import (
    ADDRESSES_PER_MESSAGE,
    VERSION,
    Adopted,
    Carried,
    Copy,
    Finished,
    KeyRefused,
    KeyState,
    KeyTaken,
    Listening,
    MoveError,
    MoveMessage,
    Positions,
    Refused,
    Rooms,
    Settled,
    parts_of,
)

log = logging.getLogger("stickygw.move")

AT_A_TIME = 64
"""Connections that are frozen in one step, some 10 ms of work on both sides. As many may rest while those before them
have no answer: what is told to rest earlier is silent for longer."""

ANSWER_SECONDS = 5.0
"""The other worker has so long for its next answer; it answers when its loop turns."""


@dataclass(slots=True)
class Outcome:
    """What became of the WebSockets: `left` are still here, or were closed because their key has gone."""

    moved: int = 0
    refused: int = 0
    left: int = 0


class Leaving:
    """One move, at the old worker. `on_moved` is called for each connection that the other one has adopted.

    Those move that `belongs` is true of. `is_same_slot`: the other worker has this one's slot. `wait_all_gone` is
    awaited when all have gone, before the last word: what is published here goes over the link until then;
    `wait_all_finished` when the other worker has said the last word too, before the link ends. `key_belongs` says of an
    affinity key whether its state is to go there. `grace_seconds`: how long a connection whose handler is at work is
    waited for; `within_seconds`: how long the whole move may take, but for the last answers.
    """

    def __init__(
        self,
        runtime: Runtime,
        sock: socket.socket,
        *,
        grace_seconds: float,
        within_seconds: float,
        on_moved: Callable[[HandOverId], None],
        belongs: Callable[[Connection], bool],
        key_belongs: Callable[[bytes], bool],
        is_same_slot: bool,
        wait_all_gone: Callable[[], Awaitable[None]],
        wait_all_finished: Callable[[], Awaitable[None]],
    ) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self._grace_seconds = grace_seconds
        self._ends_at = self._loop.time() + within_seconds
        self._on_moved = on_moved
        self._belongs = belongs
        self._wait_all_gone = wait_all_gone
        self._wait_all_finished = wait_all_finished
        self._changed = asyncio.Event()
        self.outcome = Outcome()
        """So far; who is here is not counted."""
        self._waiting: deque[Connection] = deque()
        self._held: dict[Connection, float] = {}
        """Those that are told to rest and are not gone, in that order, and until when they are waited for."""
        self._resting: set[Connection] = set()
        """Those of them that rest, but for what has ended since."""
        self._kept: set[Connection] = set()
        """Those that stay here: they were waited for in vain, or nobody can say what they are."""
        self._sent: dict[HandOverId, Connection] = {}
        """Frozen and sent, and not answered for."""
        self._outs = MoveOuts(
            runtime,
            max_count=AT_A_TIME,
            grace_seconds=grace_seconds,
            on_failed=self._let_stay,
            on_changed=self._changed.set,
        )
        """Of these, those that go next."""
        self._is_finished = False  # the other side has read all, and said so
        self._answered_at = 0.0  # or when the first was sent after the last answer
        self._link = MoveLink(sock, on_message=self._received, on_closed=self._changed.set)
        self._rooms = runtime.audience.departures(
            send_copy=partial(send_copy, self._link), on_ready=self._changed.set, is_same_slot=is_same_slot
        )
        self._keys = LeavingKeys(
            runtime,
            self._link,
            belongs=key_belongs,
            grace_seconds=grace_seconds,
            can_depart=self._rooms.can_depart,
            release=self._release,
            on_changed=self._changed.set,
        )

    async def run(self) -> Outcome:
        """Move all that can move. What is left when this returns is served here as before."""
        settling = asyncio.ensure_future(self._settle())
        try:
            while not self._link.is_closed and self._loop.time() < self._ends_at:
                self._tell_rooms()
                self._keys.proceed()
                self._hold_some()
                self._outs.take_from(self._resting)
                if not self._held and not self._waiting and self._keys.is_done:
                    break
                if not await self._send_some() and not await self._wait(self._next_deadline()):
                    self._give_up_late()
            self._keys.stop()
            await self._keys.wait_returned()
            await self._wait_answers()
            if not self._sent:  # who has no answer is not kept frozen
                await self._wait_all_gone()
                await wait_published(self._runtime.bridge)  # what came over the link may come to others by the store
            await self._finish()
            if not self._sent:
                await self._wait_all_finished()
        finally:
            settling.cancel()
            self._end()
        await self._keys.wait_returned()
        self.outcome.refused += self._keys.refused
        self.outcome.left = self._keys.closed
        return self.outcome

    # Step by step

    async def _settle(self) -> None:
        await self._runtime.bridge.wait_sent()
        self._link.send(Settled(self._runtime.bridge.origin))

    def _tell_rooms(self) -> None:
        new = self._rooms.take_new_addresses()
        for start in range(0, len(new), ADDRESSES_PER_MESSAGE):
            self._link.send(Rooms(VERSION, new[start : start + ADDRESSES_PER_MESSAGE]))

    def _hold_some(self) -> None:
        """Tell so many more to rest that they can be frozen in one step when those before them have their answers."""
        if len(self._resting) + len(self._sent) > AT_A_TIME:
            self._put_back()
            return
        if not self._waiting:
            self._waiting.extend(self._rest_of_them())  # those too that have opened since the last look
        until = self._loop.time() + self._grace_seconds
        while self._waiting and len(self._resting) < AT_A_TIME:
            connection = self._waiting.popleft()
            if connection.can_move:
                self._held[connection] = until
                connection.hold(partial(self._rests, connection))

    def _release(self, connection: Connection) -> None:
        """Its key has gone, and it rests: it follows."""
        self._held[connection] = self._loop.time() + self._grace_seconds
        self._rests(connection)

    def _rests(self, connection: Connection) -> None:
        self._resting.add(connection)
        self._changed.set()

    def _put_back(self) -> None:
        """Many handlers have ended at once: those that have to wait their turn go on meanwhile."""
        can_wait = [each for each in self._resting if each not in self._outs and not self._keys.has_left(each)]
        for connection in can_wait[: max(0, len(self._resting) - 2 * AT_A_TIME)]:
            self._resting.discard(connection)
            del self._held[connection]
            connection.go_on()
            self._waiting.append(connection)

    def _rest_of_them(self) -> list[Connection]:
        accounted = {*self._held, *self._kept, *self._sent.values()}
        return [
            connection
            for connection in self._runtime.connections
            if isinstance(connection, Connection)
            and connection not in accounted
            and connection.can_move
            and self._belongs(connection)
            and not self._keys.has(connection)
        ]

    async def _send_some(self) -> bool:
        """Freeze and send who rests. False: nobody could go."""
        self._forget_ended()
        ready = set(self._ready())
        if len(self._sent) > AT_A_TIME or not ready:
            return False
        await wait_published(self._runtime.bridge)
        self._forget_ended()
        if self._link.is_full:
            self._link.when_sent(self._changed.set)  # copies have no answers that would wake it
            return False
        if self._link.is_closed:
            return False
        # Who was not ready before may have published since.
        departure = self._rooms.depart([each for each in self._ready() if each in ready])
        if not departure.tickets:
            return False
        self._send_positions(departure)
        count = sum([self._send(ticket.member, ticket.addresses, ticket.groups) for ticket in departure.tickets])
        await asyncio.sleep(0)
        return count > 0

    def _ready(self) -> list[Connection]:
        return [member for member in self._outs.ready if member.is_at_rest and self._rooms.can_depart(member)]

    def _forget_ended(self) -> None:
        """Those that have ended, or are ending, do so here."""
        for connection in [connection for connection in self._held if not connection.can_move]:
            self._let_stay(connection)

    def _let_stay(self, connection: Connection) -> None:
        self._changed.set()  # perhaps it was the last
        self._forget(connection)
        self._kept.add(connection)
        self._keys.stay(connection)

    def _forget(self, connection: Connection) -> None:
        self._held.pop(connection, None)
        self._outs.forget(connection)
        self._resting.discard(connection)

    def _next_deadline(self) -> float:
        """Until when something must have changed."""
        deadlines = [self._ends_at, *(until for connection, until in self._held.items() if not connection.is_at_rest)]
        if (keys_at := self._keys.deadline) is not None:
            deadlines.append(keys_at)
        if self._sent:
            deadlines.append(self._answered_at + ANSWER_SECONDS)
        return min(deadlines)

    def _give_up_late(self) -> None:
        """Something has not changed in time: a connection does not come to rest, or the other worker hangs."""
        now = self._loop.time()
        if self._sent and now >= self._answered_at + ANSWER_SECONDS:
            self._ends_at = now
        late = [each for each, until in self._held.items() if until <= now and not each.is_at_rest]
        for connection in late:  # who rests waits for its rooms, or its turn, as long as the move may take
            self._let_stay(connection)

    def _send_positions(self, departure: Departure) -> None:
        parts, copied = parts_of(departure.positions), list(departure.copied)
        for number, part in enumerate(parts, start=1):
            self._link.send(Positions(departure.pinged, part, copied, is_last=number == len(parts)))

    def _send(self, member: object, addresses: tuple[str, ...], groups: tuple[bytes, ...]) -> bool:
        assert isinstance(member, Connection)
        carried = member.frozen(addresses, groups, self._outs.values_of(member))
        if carried is None:
            self._let_stay(member)  # it has just ended, or is in a message that its client may never end
            return False
        try:
            send_state(self._link, partial(Carried, carried.offer.id), carried.to_bytes(), (member.fileno(),))
        except (NotCarried, MoveError, OSError) as error:
            log.error("move: a connection stays: %s", error)
            self._let_stay(member)
            return False
        self._forget(member)
        if not self._sent:
            self._answered_at = self._loop.time()
        self._sent[carried.offer.id] = member
        return True

    async def _wait(self, deadline: float) -> bool:
        """Wait until something has changed. False: nothing has until `deadline`."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def _wait_answers(self) -> None:
        while self._sent and not self._link.is_closed:
            if not await self._wait(self._answered_at + ANSWER_SECONDS):
                log.error("move: the next worker has not answered for %d connections", len(self._sent))
                break

    async def _finish(self) -> None:
        """Say that this was all, and wait for the same word: then either side has read every copy of the other's."""
        self._link.send(Finished())
        until = self._loop.time() + ANSWER_SECONDS
        while not (self._is_finished or self._link.is_closed):
            if not await self._wait(until):
                log.error("move: the next worker does not say that it has all")
                break

    # What comes

    def _received(self, message: MoveMessage, fds: list[int]) -> None:
        match message:
            case Adopted(id):
                self._adopted(id)
            case Refused(id, why):
                self._refused(id, why)
            case KeyTaken(key):
                self._keys.taken(key)
            case KeyRefused(key, why):
                self._keys.refuse_key(key, why)
            case Listening(number, addresses):
                self._rooms.listening(number, addresses)
            case Copy(channel, data):
                copy = read_copy(data, fds)
                if copy is not None:
                    self._rooms.copies.received(channel, copy)
            case Settled(origin):
                self._rooms.copies.settled(origin)
            case Finished():
                self._is_finished = True
            case _:
                log.error("move: a %s where none belongs", type(message).__name__)
        for fd in fds:
            os.close(fd)
        if not isinstance(message, Copy):  # or all connections would be looked at for each
            self._changed.set()

    def _adopted(self, id: HandOverId) -> None:
        self._answered_at = self._loop.time()
        connection = self._sent.pop(id, None)
        if connection is not None:
            self._let_go(id, connection)
            self.outcome.moved += 1

    def _let_go(self, id: HandOverId, connection: Connection) -> None:
        connection.let_go()
        self._keys.left(connection)
        self._on_moved(id)

    def _refused(self, id: HandOverId, why: str) -> None:
        self._answered_at = self._loop.time()
        connection = self._sent.pop(id, None)
        if connection is not None:
            log.warning("move: the new code does not take a connection: %s", why)
            self.outcome.refused += 1
            self._keys.refuse(connection)

    def _end(self) -> None:
        """Those that have no other worker stay. One that was sent and is not answered for is the other's while it
        lives: it may have adopted it."""
        unsent = self._link.take_back()
        self._keys.end([message.key for message in unsent if isinstance(message, KeyState)])
        unread = list(self._sent)
        if not self._link.is_closed:
            unread = [message.id for message in unsent if isinstance(message, Carried)]
        for id in unread:
            connection = self._sent.pop(id, None)
            if connection is not None:
                self._keys.stay(connection)
        for id, connection in self._sent.items():
            self._let_go(id, connection)
        self._sent.clear()
        for connection in tuple(self._held):
            self._let_stay(connection)
        self._runtime.audience.end_move(self._rooms)
        self._link.close()
