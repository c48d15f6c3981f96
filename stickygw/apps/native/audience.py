"""Whom a message is for: rooms, users, sessions, connections, here and on all other workers. `Audience`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence, Set
from dataclasses import replace

from stickygw.apps.native.awaitables import DONE, NEXT_TURN, Later
from stickygw.bridge.addresses import DIRECT, check_room, local_address, room_of, user_address
from stickygw.bridge.arrivals import Arrivals
from stickygw.bridge.base import Bridge, OnCopy, Publication
from stickygw.bridge.departures import Departures
from stickygw.bridge.hub import Hub, Member
from stickygw.bridge.room import Target
from stickygw.bridge.withheld import NOBODY, Withheld
from stickygw.connections.sending import CLOSE_SECONDS
from stickygw.errors import RoomNameError
from stickygw.wire.closing import close_payload, read_close
from stickygw.wire.envelope import CLOSE, GROUP_BYTES
from stickygw.wire.prepared import Batch, PreparedMessage

__all__ = ["Audience", "Target"]

PUBLISHES_PER_TURN = 64
"""An awaited publish lets the loop turn after so many, so that outboxes can empty."""

BRIDGE_BACKLOG = 1000
"""With more than this on its way to the bridge, an awaited publish waits until it is sent."""

MAX_GROUPS = 64
"""Messages in several rooms, from other workers, of which it is remembered who has them. The copies of one come
together; if so many others came between, a member could get two."""

MAX_ROOMS = 1000
"""Rooms of one message."""

MAX_GROUPS_MOVING = 2 * MAX_GROUPS
"""While connections move here, with what they had where they were."""

CLOSE_WITHIN = CLOSE_SECONDS
"""Seconds in which a connection that is disconnected from elsewhere has closed, its handlers' time included."""


class Audience:
    """Publishes to local members at once, to all others through the bridge, and gives out what the bridge brings.

    `targets` gives the connections of this worker. `random_bytes` makes the groups of messages in several rooms.
    """

    def __init__(
        self,
        hub: Hub,
        bridge: Bridge,
        *,
        targets: Callable[[], Iterable[Target]],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._hub = hub
        self._bridge = bridge
        self._targets = targets
        self._random_bytes = random_bytes
        self._groups: dict[bytes, set[Member]] = {}  # with who has been given them
        self._published = 0  # in this turn of the loop
        self._held: Counter[str] = Counter()  # addresses that moves hold, with how many do
        self._departures: list[Departures] = []
        self._arrivals: list[Arrivals] = []
        self._withheld = Withheld()

    def start(self) -> Awaitable[None]:
        """Hear what is meant for single sessions and connections."""
        return self._bridge.subscribe(DIRECT)

    # Members

    def join(self, address: str, member: Member) -> Awaitable[None]:
        """Put `member` there; the result is `Bridge.subscribe`'s. Raises `RoomNameError`."""
        heard = self._bridge.subscribe(address)  # first: what `member` is given in joining may make it leave
        for move in self._departures:
            move.joined(address)
        self._hub.join(address, member)
        return heard

    def leave(self, address: str, member: Member) -> None:
        """Take `member` out, where it may not be."""
        if self._hub.leave(address, member):
            self._unsubscribe(address)

    def leave_all(self, member: Member) -> None:
        """Take `member` out of everything: its connection has ended, or is another worker's."""
        for address in self._hub.leave_all(member):
            self._unsubscribe(address)
        self._withheld.forget(member)
        for given in self._groups.values():  # or it would be kept alive
            given.discard(member)

    def _unsubscribe(self, address: str) -> None:
        if not self._held[address]:
            self._bridge.unsubscribe(address)

    # Publishing

    def publish(
        self, rooms: str | Collection[str], message: PreparedMessage, exclude: Member | None
    ) -> Awaitable[None]:
        """To each member of `rooms`, once, but for `exclude`. Raises `RoomNameError`; then nothing is sent."""
        names = _names(rooms)
        for name in names if len(names) > 1 else ():
            self._hub.make_place(name)  # while the message goes to one after the other, nobody goes between them
        group = self._random_bytes(GROUP_BYTES) if len(names) > 1 else b""
        publication = Publication(message.opcode, message.payload, "", group)
        here = [name for name in names if self._hub.has_members(name)]
        for number, name in enumerate(here):
            self._hub.publish(name, message, exclude=exclude, unless=here[:number])
        for name in names:
            self._carry(name, publication)
        if group and self._departures:
            self._remember(group, {member for name in here for member in self._hub.members_of(name)})
        return self._sent()

    def publish_local(self, room: str, message: PreparedMessage, exclude: Member | None) -> None:
        """To the members of `room` on this worker. While it is replaced, to those of both; while affinity keys move
        here, to those too that follow them."""
        self._hub.publish(check_room(room), message, exclude=exclude)
        moves: list[Departures | Arrivals] = [*self._departures, *self._arrivals]
        if moves:
            address, publication = local_address(room), Publication(message.opcode, message.payload)
            if any(move.carries_local for move in moves):
                self._record(address, publication, self._bridge.publish_copy(address, publication))
            for move in self._arrivals:
                move.published_local(address, publication)

    def send_to_user(self, user: str, message: PreparedMessage) -> Awaitable[None]:
        """To all connections that are identified as `user`. Raises `RoomNameError`."""
        address = user_address(user)
        self._hub.publish(address, message)
        self._carry(address, Publication(message.opcode, message.payload))
        return self._sent()

    def send_to(self, to: str, message: PreparedMessage) -> Awaitable[None]:
        """To the connections that `to`, ``session:ID`` or ``connection:ID``, names."""
        return self._publish_directly(Publication(message.opcode, message.payload, to))

    def disconnect(self, to: str, code: int, reason: str) -> Awaitable[None]:
        """Close the connections that `to` names; ``user:NAME`` too."""
        payload = close_payload(code, reason)
        if not to.startswith("user:"):
            return self._publish_directly(Publication(CLOSE, payload, to))
        address = user_address(to.removeprefix("user:"))
        publication = Publication(CLOSE, payload)
        self._give(address, publication, NOBODY)
        self._carry(address, publication)
        return self._sent()

    def _publish_directly(self, publication: Publication) -> Awaitable[None]:
        self._give(DIRECT, publication, NOBODY)
        self._carry(DIRECT, publication)
        return self._sent()

    def _carry(self, address: str, publication: Publication) -> None:
        """To all other workers, and to who comes here from one of them."""
        self._record(address, publication, self._bridge.publish(address, publication))

    def _record(self, address: str, publication: Publication, number: int) -> None:
        if self._arrivals:
            published = replace(publication, origin=self._bridge.origin, number=number)
            for move in self._arrivals:
                move.received(address, published)

    def _sent(self) -> Awaitable[None]:
        self._published += 1
        if self._published == 1:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._bridge.backlog > BRIDGE_BACKLOG:
            return Later(self._bridge.wait_sent)
        return NEXT_TURN if self._published % PUBLISHES_PER_TURN == 0 else DONE

    def _next_turn(self) -> None:
        self._published = 0

    # Receiving

    def received(self, address: str, publication: Publication) -> None:
        """For the bridge: what was published at `address`."""
        for move in self._arrivals:
            move.received(address, publication)
        had = self._withheld.given(address, publication.origin, publication.number) if self._withheld else NOBODY
        self._give(address, publication, had)

    def _give(self, address: str, publication: Publication, had: frozenset[Member]) -> None:
        """To who is meant, but for those who `had` it."""
        if publication.opcode == CLOSE:
            members = self._meant(publication.to) if address == DIRECT else self._hub.members_of(address)
            for member in members:
                if member not in had:
                    self._close(member, publication)
        elif address == DIRECT:
            batch = Batch([PreparedMessage(publication.opcode, publication.payload)])
            for target in self._meant(publication.to):
                if target not in had:
                    self._hub.give(target, batch)
        else:
            room = room_of(address)
            message = PreparedMessage(publication.opcode, publication.payload)
            given = self._groups.pop(publication.group, set())
            self._hub.publish(room, message, given=had.union(given))
            if publication.group:
                self._remember(publication.group, given.union(self._hub.members_of(room)))

    def _remember(self, group: bytes, given: set[Member]) -> None:
        """The message of `group` has been given to these: to who was in one of its rooms when that one's copy came.

        Who that was then counts: between two copies they may go from one room to the other.
        """
        self._groups[group] = given
        if len(self._groups) > (MAX_GROUPS_MOVING if self._arrivals else MAX_GROUPS):
            del self._groups[next(iter(self._groups))]

    def _close(self, member: Member, publication: Publication) -> None:
        code, reason = read_close(publication.payload)
        member.send_away(code, reason, within=CLOSE_WITHIN)

    def _meant(self, to: str) -> list[Target]:
        return [target for target in self._targets() if target.is_meant(to)]

    # Connections that move: docs/explanation/live-move.md

    def departures(self, *, send_copy: OnCopy, on_ready: Callable[[], None], is_same_slot: bool) -> Departures:
        """Begin to move connections from here; `end_move` ends it."""
        move = Departures(
            self._hub,
            self._bridge,
            self._withheld,
            hold=self._hold,
            release=self._release,
            groups_of=self._groups_of,
            send_copy=send_copy,
            on_ready=on_ready,
            is_same_slot=is_same_slot,
        )
        self._departures.append(move)
        return move

    def arrivals(
        self,
        *,
        send_copy: OnCopy,
        send_listening: Callable[[int, list[str]], None],
        on_gap: Callable[[list[str]], None],
        is_same_slot: bool,
    ) -> Arrivals:
        """Begin to take connections from another worker; `end_move` ends it."""
        move = Arrivals(
            self._hub,
            self._bridge,
            self._withheld,
            join=self.join,
            hold=self._hold,
            release=self._release,
            add_groups=self._add_groups,
            close=self._close,
            send_copy=send_copy,
            send_listening=send_listening,
            on_gap=on_gap,
            is_same_slot=is_same_slot,
        )
        self._arrivals.append(move)
        return move

    def end_move(self, move: Departures | Arrivals) -> None:
        """It is over. Idempotent."""
        self._departures = [other for other in self._departures if other is not move]
        self._arrivals = [other for other in self._arrivals if other is not move]
        move.end()

    def gap(self, addresses: Collection[str]) -> None:
        """For the bridge, beside who tells the application: something may have been missed at these."""
        for move in self._arrivals:
            move.gap(addresses)

    def _hold(self, addresses: Iterable[str]) -> None:
        self._held.update(addresses)

    def _release(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]
                if address != DIRECT and not self._hub.members_of(address):
                    self._bridge.unsubscribe(address)

    def _groups_of(self, member: Member) -> tuple[bytes, ...]:
        return tuple(group for group, given in self._groups.items() if member in given)

    def _add_groups(self, member: Member, groups: Iterable[bytes]) -> None:
        for group in groups:
            if group in self._groups:
                self._groups[group].add(member)
            else:
                self._remember(group, {member})


def _names(rooms: str | Collection[str]) -> tuple[str, ...]:
    """Each of `rooms` once, checked. They are often what a client has sent."""
    if isinstance(rooms, str):
        return (check_room(rooms),)
    if not isinstance(rooms, Sequence | Set):
        raise RoomNameError(f"a room's name is text, or several in a list, tuple or set, not {type(rooms).__name__}")
    if len(rooms) > MAX_ROOMS:
        raise RoomNameError(f"{len(rooms)} rooms for one message, at most {MAX_ROOMS} are allowed")
    return tuple(dict.fromkeys(check_room(name) for name in rooms))
