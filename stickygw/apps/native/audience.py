"""Whom a message is for: rooms, users, sessions, connections, here and on all other workers. `Audience`."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

from stickygw.apps.native.awaitables import DONE, NEXT_TURN, Later
from stickygw.bridge.addresses import DIRECT, check_room, user_address
from stickygw.bridge.base import Bridge, Publication
from stickygw.bridge.hub import Hub, Member
from stickygw.wire.envelope import CLOSE, GROUP_BYTES
from stickygw.wire.prepared import Batch, PreparedMessage

PUBLISHES_PER_TURN = 64
"""An awaited publish lets the loop turn after so many, so that outboxes can empty."""

BRIDGE_BACKLOG = 1000
"""With more than this on its way to the bridge, an awaited publish waits until it is sent."""

MAX_GROUPS = 64
"""Messages in several rooms, from other workers, of which it is remembered who has them. The copies of one come
together; if so many others came between, a member could get two."""

CLOSE_WITHIN = 4.5
"""Seconds in which a connection that is disconnected from elsewhere has closed."""


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
        self._hub.join(address, member)
        return self._bridge.subscribe(address)

    def leave(self, address: str, member: Member) -> None:
        """Take `member` out, where it may not be."""
        if self._hub.leave(address, member):
            self._bridge.unsubscribe(address)

    def leave_all(self, member: Member) -> None:
        """Take `member` out of everything."""
        for address in self._hub.leave_all(member):
            self._bridge.unsubscribe(address)

    # Publishing

    def publish(
        self, rooms: str | Collection[str], message: PreparedMessage, exclude: Member | None
    ) -> Awaitable[None]:
        """To each member of `rooms`, once, but for `exclude`. Raises `RoomNameError`; then nothing is sent."""
        names = (rooms,) if isinstance(rooms, str) else tuple(dict.fromkeys(rooms))
        for name in names:
            check_room(name)
        group = self._random_bytes(GROUP_BYTES) if len(names) > 1 else b""
        publication = Publication(message.opcode, message.payload, "", group)
        for number, name in enumerate(names):
            self._hub.publish(name, message, exclude=exclude, unless=names[:number])
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
        payload = struct.pack("!H", code) + reason.encode()
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
                self._hub.catch_up(target)  # it has what was published in its rooms before
                target.deliver(batch)
        else:
            message = PreparedMessage(publication.opcode, publication.payload)
            self._hub.publish(address, message, given=self._given(publication.group, address))

    def _given(self, group: bytes, room: str) -> frozenset[Member]:
        """Who has been given the message of `group` in another room; from now on the members of `room` too.

        Who they are now counts: between two copies they may go from one room to the other.
        """
        if not group:
            return frozenset()
        given = self._groups.pop(group, frozenset())
        self._groups[group] = given.union(self._hub.members_of(room))
        if len(self._groups) > MAX_GROUPS:
            del self._groups[next(iter(self._groups))]
        return given

    def _close(self, address: str, publication: Publication) -> None:
        code = int.from_bytes(publication.payload[:2], "big")
        reason = publication.payload[2:].decode(errors="replace")
        members = self._meant(publication.to) if address == DIRECT else self._hub.members_of(address)
        for member in members:
            member.send_away(code, reason, within=CLOSE_WITHIN)

    def _meant(self, to: str) -> list[Target]:
        return [target for target in self._targets() if target.is_meant(to)]
