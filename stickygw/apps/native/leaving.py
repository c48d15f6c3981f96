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
from itertools import islice
from typing import Any

from stickygw.apps.native.carried import NotCarried
from stickygw.apps.native.connection import Connection
from stickygw.apps.native.runtime import Runtime, settled
from stickygw.bridge.departures import Departure
from stickygw.ipc.move_link import MoveLink
from stickygw.types import HandOverId
from stickygw.wire.move import (
    ADDRESSES_PER_MESSAGE,
    MAX_STATE_BYTES,
    VERSION,
    Adopted,
    Carried,
    Copy,
    Finished,
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

SENT_SECONDS = 1.0
"""Redis has so long to answer what was published; then it counts as away."""

ANSWER_SECONDS = 5.0
"""The other worker has so long for its next answer; it answers when its loop turns."""


@dataclass(slots=True)
class Outcome:
    """What became of the connections: `left` are still here, and open."""

    moved: int = 0
    refused: int = 0
    left: int = 0


async def wait_published(runtime: Runtime) -> None:
    """What was published before is answered by the store, or lost: or else the store is slow, and not waited for."""
    try:
        async with asyncio.timeout(SENT_SECONDS):
            await runtime.bridge.wait_sent()
    except TimeoutError:
        log.warning("move: the store does not answer; connections move without waiting for it")


class Leaving:
    """One move, at the old worker. `on_moved` is called for each connection that the other one has adopted.

    Those move that `belongs` is true of. `is_same_slot`: the other worker has this one's slot. `wait_for_others` is
    awaited when all have gone, before the link ends: what is published here goes over it until then.
    `grace_seconds`: how long a connection whose handler is at work is waited for; `within_seconds`: how long the whole
    move may take, but for the last answers.
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
        is_same_slot: bool,
        wait_for_others: Callable[[], Awaitable[None]],
    ) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self._grace_seconds = grace_seconds
        self._ends_at = self._loop.time() + within_seconds
        self._on_moved = on_moved
        self._belongs = belongs
        self._wait_for_others = wait_for_others
        self._changed = asyncio.Event()
        self.outcome = Outcome()
        """So far; `left` is not counted here."""
        self._waiting: deque[Connection] = deque()
        self._held: dict[Connection, float] = {}
        """Those that are told to rest and are not gone, in that order, and until when they are waited for."""
        self._resting: set[Connection] = set()
        """Those of them that rest, but for what has ended since."""
        self._kept: set[Connection] = set()
        """Those that stay here: they were waited for in vain, or nobody can say what they are."""
        self._sent: dict[HandOverId, Connection] = {}
        """Frozen and sent, and not answered for."""
        self._values: dict[Connection, tuple[Any, ...]] = {}
        """What ``on_move_out`` has returned for those that rest."""
        self._answered_at = 0.0  # or when the first was sent after the last answer
        self._link = MoveLink(sock, on_message=self._received, on_closed=self._changed.set)
        self._rooms = runtime.audience.departures(
            send_copy=self._send_copy, on_ready=self._changed.set, is_same_slot=is_same_slot
        )

    async def run(self) -> Outcome:
        """Move all that can move. What is left when this returns is served here as before."""
        settling = asyncio.ensure_future(self._settle())
        try:
            while not self._link.is_closed and self._loop.time() < self._ends_at:
                self._tell_rooms()
                self._hold_some()
                if not self._held and not self._waiting:
                    break
                if not await self._send_some() and not await self._wait(self._next_deadline()):
                    self._give_up_late()
            await self._wait_answers()
            if not self._sent:  # who has no answer is not kept frozen
                await self._wait_for_others()
            self._link.send(Finished())
        finally:
            settling.cancel()
            self._end()
        return self.outcome

    # Step by step

    async def _settle(self) -> None:
        await wait_published(self._runtime)
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

    def _rests(self, connection: Connection) -> None:
        if self._runtime.app.handlers.move_out:
            self._runtime.spawn(self._ask(connection))
        else:
            self._resting.add(connection)
            self._changed.set()

    async def _ask(self, connection: Connection) -> None:
        """Run ``on_move_out``; who raises stays."""
        try:
            values = [await settled(function(connection)) for function in self._runtime.app.handlers.move_out]
        except Exception:
            log.exception("on_move_out raised; the connection does not move")
            self._let_stay(connection)
        else:
            if connection in self._held:
                self._values[connection] = tuple(values)
                self._resting.add(connection)
        self._changed.set()

    def _put_back(self) -> None:
        """Many handlers have ended at once: those that have to wait their turn go on meanwhile."""
        while len(self._resting) > 2 * AT_A_TIME:
            connection = self._resting.pop()
            del self._held[connection]
            self._values.pop(connection, None)
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
        ]

    async def _send_some(self) -> bool:
        """Freeze and send who rests. False: nobody could go."""
        self._forget_ended()
        if len(self._sent) > AT_A_TIME or not self._ready():
            return False
        await wait_published(self._runtime)
        self._forget_ended()
        if self._link.is_closed or self._link.is_full:
            return False
        departure = self._rooms.depart(self._ready())
        if not departure.tickets:
            return False
        self._send_positions(departure)
        count = sum([self._send(ticket.member, ticket.addresses, ticket.groups) for ticket in departure.tickets])
        await asyncio.sleep(0)
        return count > 0

    def _ready(self) -> list[Connection]:
        return [member for member in self._resting if member.is_at_rest and self._rooms.can_depart(member)][:AT_A_TIME]

    def _forget_ended(self) -> None:
        """Those that have ended, or are ending, do so here."""
        for connection in [connection for connection in self._held if not connection.can_move]:
            self._let_stay(connection)

    def _let_stay(self, connection: Connection) -> None:
        self._held.pop(connection, None)
        self._values.pop(connection, None)
        self._resting.discard(connection)
        self._kept.add(connection)
        connection.go_on()

    def _next_deadline(self) -> float:
        """Until when something must have changed."""
        deadlines = [self._ends_at, *islice(self._held.values(), 1)]
        if self._sent:
            deadlines.append(self._answered_at + ANSWER_SECONDS)
        return min(deadlines)

    def _give_up_late(self) -> None:
        """Something has not changed in time: a connection does not come to rest, or the other worker hangs."""
        now = self._loop.time()
        if self._sent and now >= self._answered_at + ANSWER_SECONDS:
            self._ends_at = now
        for connection in [connection for connection, until in self._held.items() if until <= now]:
            self._let_stay(connection)

    def _send_positions(self, departure: Departure) -> None:
        parts = parts_of(departure.positions)
        for number, part in enumerate(parts, start=1):
            self._link.send(Positions(departure.pinged, part, is_last=number == len(parts)))

    def _send(self, member: object, addresses: tuple[str, ...], groups: tuple[bytes, ...]) -> bool:
        assert isinstance(member, Connection)
        carried = member.frozen(addresses, groups, self._values.get(member, ()))
        if carried is None:
            return False  # in the middle of what can't be described: a little later
        try:
            state = carried.to_bytes()
            self._pass(carried.offer.id, state, member.fileno())
        except (NotCarried, MoveError, OSError) as error:
            log.error("move: a connection stays: %s", error)
            member.thaw()
            self._let_stay(member)
            return False
        del self._held[member]
        self._values.pop(member, None)
        self._resting.discard(member)
        if not self._sent:
            self._answered_at = self._loop.time()
        self._sent[carried.offer.id] = member
        return True

    def _pass(self, id: HandOverId, state: bytes, fd: int) -> None:
        if len(state) <= MAX_STATE_BYTES:
            self._link.send(Carried(id, state), (fd,))
            return
        memory = os.memfd_create("stickygw-state", os.MFD_CLOEXEC)
        try:
            os.write(memory, state)
            self._link.send(Carried(id, b""), (fd, memory))
        finally:
            os.close(memory)

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

    # What comes

    def _received(self, message: MoveMessage, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        match message:
            case Adopted(id):
                self._adopted(id)
            case Refused(id, why):
                self._refused(id, why)
            case Listening(number, addresses):
                self._rooms.listening(number, addresses)
            case Copy(channel, data):
                self._rooms.copies.received(channel, data)
            case Settled(origin):
                self._rooms.copies.settled(origin)
            case _:
                log.error("move: a %s where none belongs", type(message).__name__)
        self._changed.set()

    def _adopted(self, id: HandOverId) -> None:
        self._answered_at = self._loop.time()
        connection = self._sent.pop(id, None)
        if connection is not None:
            connection.let_go()
            self.outcome.moved += 1
            self._on_moved(id)

    def _refused(self, id: HandOverId, why: str) -> None:
        self._answered_at = self._loop.time()
        connection = self._sent.pop(id, None)
        if connection is not None:
            log.warning("move: the new code does not take a connection: %s", why)
            self.outcome.refused += 1
            connection.thaw()
            connection.shut(1012, "restarting")

    def _send_copy(self, channel: bytes, data: bytes) -> None:
        if not self._link.is_full:
            try:
                self._link.send(Copy(channel, data))
            except MoveError:
                pass  # too long for a datagram: it goes through the store alone

    def _end(self) -> None:
        """Those that have no other worker stay. One that was sent and is not answered for is the other's while it
        lives: it may have adopted it."""
        if self._link.is_closed:
            unread = list(self._sent)
        else:
            unread = [message.id for message in self._link.take_back() if isinstance(message, Carried)]
        for id in unread:
            connection = self._sent.pop(id, None)
            if connection is not None:
                connection.thaw()
        for id, connection in self._sent.items():
            connection.let_go()
            self._on_moved(id)
        self._sent.clear()
        for connection in tuple(self._held):
            self._let_stay(connection)
        self._runtime.audience.end_move(self._rooms)
        self._link.close()
