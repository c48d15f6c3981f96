"""Who is in which room on this worker, and the delivery to them: `Hub`.

Other workers are the bridge's business.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Protocol

from stickygw.bridge.rooms import check_room
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import PreparedMessage

log = logging.getLogger("stickygw.hub")


class Member(Hashable, Protocol):
    """Something that can be in a room: a connection."""

    def deliver(self, message: PreparedMessage) -> None:
        """Take the message; never wait. What a slow client means is the member's to decide."""


class Hub:
    """Rooms and their local members, in both directions, so that a member can leave all its rooms at once."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # Dicts serve as sets that keep the order of joining.
        self._members: dict[str, dict[Member, None]] = {}
        self._rooms: dict[Member, dict[str, None]] = {}

    def join(self, room: str, member: Member) -> bool:
        """Add `member` to `room`; joining twice changes nothing. True: it is the room's first.

        Raises `RoomNameError`.
        """
        check_room(room)
        members = self._members.get(room)
        is_first = members is None
        if members is None:
            members = self._members[room] = {}
        members[member] = None
        self._rooms.setdefault(member, {})[room] = None
        return is_first

    def leave(self, room: str, member: Member) -> bool:
        """Take `member` out of `room`, where it may not be. True: it was the room's last."""
        members = self._members.get(room)
        if members is None or member not in members:
            return False
        del members[member]
        rooms = self._rooms[member]
        del rooms[room]
        if not rooms:
            del self._rooms[member]
        if members:
            return False
        del self._members[room]
        return True

    def leave_all(self, member: Member) -> list[str]:
        """Take `member` out of all its rooms; the rooms whose last it was."""
        return [room for room in self.rooms_of(member) if self.leave(room, member)]

    def rooms_of(self, member: Member) -> tuple[str, ...]:
        """Where `member` is, in the order of joining."""
        return tuple(self._rooms.get(member, ()))

    def deliver(self, room: str, message: PreparedMessage, exclude: Member | None = None) -> int:
        """Give `message` to each member of `room` but `exclude`; how many took it.

        Never waits. Members may leave and join while it runs: who has left gets nothing more, who has just
        joined gets the next message. A member that fails is logged and counted (``deliver_failed``); the
        others don't notice.
        """
        members = self._members.get(room)
        if members is None:
            return 0
        taken = 0
        for member in tuple(members):
            if member is exclude or member not in members:
                continue
            try:
                member.deliver(message)
            except Exception as error:
                log.exception("a member of a room failed to take a message")
                self._counters.add("deliver_failed", type(error).__name__)
            else:
                taken += 1
        return taken
