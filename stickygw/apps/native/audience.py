"""Whom a message is for: rooms, users, sessions, connections, here and on all other workers. `Audience`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence, Set
from typing import Protocol

from stickygw.apps.native.awaitables import DONE, NEXT_TURN, Later
from stickygw.bridge.addresses import DIRECT, check_room, user_address
from stickygw.bridge.base import Bridge, Publication
from stickygw.bridge.hub import Hub, Member
from stickygw.connections.websocket import CLOSE_SECONDS
from stickygw.errors import RoomNameError
from stickygw.wire.closing import close_payload, read_close
from stickygw.wire.envelope import CLOSE, GROUP_BYTES
from stickygw.wire.prepared import Batch, PreparedMessage

PUBLISHES_PER_TURN = 64
"""An awaited publish lets the loop turn after so many, so that outboxes can empty."""

BRIDGE_BACKLOG = 1000
"""With more than this on its way to the bridge, an awaited publish waits until it is sent."""

MAX_GROUPS = 64
"""Messages in several rooms, from other workers, of which it is remembered who has them. The copies of one come
together; if so many others came between, a member could get two."""

MAX_ROOMS = 1000
"""Rooms of one message."""

CLOSE_WITHIN = CLOSE_SECONDS
"""Seconds in which a connection that is disconnected from elsewhere has closed, its handlers' time included."""


class Target(Member, Protocol):
    """A connection that a message can be meant for."""

    def is_meant(self, to: str) -> bool:
        """Whether `to`, ``session:ID`` or ``connection:ID``, names it."""


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
        self._groups: dict[bytes, frozenset[Member]] = {}  # with who has been given them here
        self._published = 0  # in this turn of the loop

    def start(self) -> Awaitable[None]:
        """Hear what is meant for single sessions and connections."""
        return self._bridge.subscribe(DIRECT)

    # Members

    def join(self, address: str, member: Member) -> Awaitable[None]:
        """Put `member` there; the result is `Bridge.subscribe`'s. Raises `RoomNameError`."""
        heard = self._bridge.subscribe(address)  # first: what `member` is given in joining may make it leave
        self._hub.join(address, member)
        return heard

    def leave(self, address: str, member: Member) -> None:
        """Take `member` out, where it may not be."""
        if self._hub.leave(address, member):
            self._bridge.unsubscribe(address)

    def leave_all(self, member: Member) -> None:
        """Take `member` out of everything."""
        for address in self._hub.leave_all(member):
            self._bridge.unsubscribe(address)
        for group, given in self._groups.items():  # or it would be kept alive
            if member in given:
                self._groups[group] = given - {member}

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
            self._bridge.publish(name, publication)
        return self._sent()

    def publish_local(self, room: str, message: PreparedMessage, exclude: Member | None) -> None:
        """To the members of `room` on this worker."""
        self._hub.publish(check_room(room), message, exclude=exclude)

    def send_to_user(self, user: str, message: PreparedMessage) -> Awaitable[None]:
        """To all connections that are identified as `user`. Raises `RoomNameError`."""
        address = user_address(user)
        self._hub.publish(address, message)
        self._bridge.publish(address, Publication(message.opcode, message.payload))
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
        self.received(address, publication)
        self._bridge.publish(address, publication)
        return self._sent()

    def _publish_directly(self, publication: Publication) -> Awaitable[None]:
        self.received(DIRECT, publication)
        self._bridge.publish(DIRECT, publication)
        return self._sent()

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
        if publication.opcode == CLOSE:
            self._close(address, publication)
        elif address == DIRECT:
            batch = Batch([PreparedMessage(publication.opcode, publication.payload)])
            for target in self._meant(publication.to):
                self._hub.give(target, batch)
        else:
            message = PreparedMessage(publication.opcode, publication.payload)
            given = self._groups.pop(publication.group, frozenset())
            self._hub.publish(address, message, given=given)
            if publication.group:
                self._remember(publication.group, given.union(self._hub.members_of(address)))

    def _remember(self, group: bytes, given: frozenset[Member]) -> None:
        """The message of `group` has been given to these: to who was in one of its rooms when that one's copy came.

        Who that was then counts: between two copies they may go from one room to the other.
        """
        self._groups[group] = given
        if len(self._groups) > MAX_GROUPS:
            del self._groups[next(iter(self._groups))]

    def _close(self, address: str, publication: Publication) -> None:
        code, reason = read_close(publication.payload)
        members = self._meant(publication.to) if address == DIRECT else self._hub.members_of(address)
        for member in members:
            member.send_away(code, reason, within=CLOSE_WITHIN)

    def _meant(self, to: str) -> list[Target]:
        return [target for target in self._targets() if target.is_meant(to)]


def _names(rooms: str | Collection[str]) -> tuple[str, ...]:
    """Each of `rooms` once, checked. They are often what a client has sent."""
    if isinstance(rooms, str):
        return (check_room(rooms),)
    if not isinstance(rooms, Sequence | Set):
        raise RoomNameError(f"a room's name is text, or several in a list, tuple or set, not {type(rooms).__name__}")
    if len(rooms) > MAX_ROOMS:
        raise RoomNameError(f"{len(rooms)} rooms for one message, at most {MAX_ROOMS} are allowed")
    return tuple(dict.fromkeys(check_room(name) for name in rooms))
