"""The rooms' part of moving connections to another worker, at the one they leave: `Departures`. Pure.

docs/explanation/live-move.md tells the whole; `arrivals` is the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stickygw.bridge.addresses import DIRECT, is_room, local_address
from stickygw.bridge.base import Bridge, OnCopy
from stickygw.bridge.copies import Copies
from stickygw.bridge.hub import Hub
from stickygw.bridge.room import Member
from stickygw.bridge.withheld import Withheld


@dataclass(frozen=True, slots=True)
class Ticket:
    """What travels of one connection's rooms."""

    member: Member
    addresses: tuple[str, ...]
    """In the order of joining: rooms, and the user's."""
    groups: tuple[bytes, ...]
    """The messages in several rooms that it has been given lately."""


@dataclass(frozen=True, slots=True)
class Departure:
    """Connections that are frozen in one step, and where they stand."""

    pinged: int
    """The last `Listening` of which all that was published before it has come here."""
    positions: dict[str, dict[bytes, int]]
    """Of each address that one of them is at, and of `DIRECT`."""
    copied: tuple[bytes, ...]
    """Origins of which they may have had what the store does not have yet: copies came."""
    tickets: list[Ticket]


class Departures:
    """One move link, at the side that connections leave.

    `hold` and `release` keep addresses subscribed without members, so that positions have no holes in time; `groups_of`
    tells what messages in several rooms a member has been given lately; `on_ready` is called when `can_depart` may say
    True of more members than before.
    """

    def __init__(
        self,
        hub: Hub,
        bridge: Bridge,
        withheld: Withheld,
        *,
        hold: Callable[[Iterable[str]], None],
        release: Callable[[Iterable[str]], None],
        groups_of: Callable[[Member], tuple[bytes, ...]],
        send_copy: OnCopy,
        on_ready: Callable[[], None],
        is_same_slot: bool,
    ) -> None:
        self._hub = hub
        self._bridge = bridge
        self._withheld = withheld
        self._hold = hold
        self._release = release
        self._groups_of = groups_of
        self._send_copy = send_copy
        self._on_ready = on_ready
        self._is_same_slot = is_same_slot
        self.carries_local = False
        """Whether the other side is to have what is published for this worker alone: from when on it takes copies as
        they come, so that they stay in order."""
        self.copies = Copies(bridge, on_open=on_ready, ignores_store=is_same_slot)
        self._new: dict[str, None] = {}
        self._held: dict[str, None] = {}
        self._listened: dict[str, int] = {}  # addresses that the other side records, and its number for that
        self._tried = 0  # the last Listening for which a ping is over, whether or not it was answered
        self._pinged = 0
        self._latest = 0
        self._is_pinging = False
        self._is_over = False
        bridge.copy_to(send_copy, with_local=False)
        for address in (DIRECT, *hub.addresses):
            self.joined(address)

    # What happens

    def joined(self, address: str) -> None:
        """A member has joined it, or is about to."""
        if address not in self._held and not self._is_over:
            self._held[address] = self._new[address] = None
            self._hold((address,))

    def take_new_addresses(self) -> list[str]:
        """What the other side is to be told in a `Rooms` now; empty: nothing."""
        new, self._new = list(self._new), {}
        return new

    def listening(self, number: int, addresses: Sequence[str]) -> None:
        """The other side records these from now on, or again, since it may have missed something."""
        self._latest = number
        if self._is_same_slot and not self.carries_local and not self._is_over:
            self.carries_local = True
            self._bridge.copy_to(self._send_copy, with_local=True)
        for address in addresses:
            self._listened.setdefault(address, number)
        self.ping()

    def ping(self) -> None:
        """Ask our subscriber once more, if it has not answered since the last `Listening`: for when it is back."""
        if self._is_pinging or self._pinged >= self._latest or self._is_over:
            return
        self._is_pinging = True
        number = self._latest
        self._bridge.ping(lambda is_answered: self._ponged(number, is_answered))

    def _ponged(self, number: int, is_answered: bool) -> None:
        self._is_pinging = False
        self._tried = number
        if is_answered:
            self._pinged = number
        if number < self._latest:
            self.ping()
        self._on_ready()

    # Who goes

    def can_depart(self, member: Member) -> bool:
        """Whether its rooms are ready for it to go. If not, `on_ready` is called once they may be, or it waits for what
        it had before it came here itself: for a ping, or the end of a move from another slot."""
        return (
            self.copies.is_open
            and not self._withheld.has(member)
            and all(
                self._listened.get(address, self._tried + 1) <= self._tried
                for address in (DIRECT, *self._hub.rooms_of(member))
            )
        )

    def depart(self, members: Iterable[Member]) -> Departure:
        """Give them what their rooms have for them, and note where they stand; those that are to wait are left out.

        Those with a ticket are to be frozen at once, before the loop turns and before anything is published. Until they
        are adopted they remain members, and what they are given waits in them. Not within a delivery.
        """
        chosen = [member for member in members if self.can_depart(member)]
        for member in chosen:
            self._hub.catch_up(member)
        # Within a delivery others may have published, joined or ended.
        tickets = [
            Ticket(member, self._hub.rooms_of(member), self._groups_of(member))
            for member in chosen
            if self.can_depart(member) and not self._hub.has_waiting(member)
        ]
        positions: dict[str, dict[bytes, int]] = {}
        addresses = dict.fromkeys(address for ticket in tickets for address in ticket.addresses)
        for address in (DIRECT, *addresses):
            positions[address] = self._bridge.position_of(address)
            if self._is_same_slot and is_room(address):
                local = self._bridge.position_of(local_address(address))
                if local:
                    positions[local_address(address)] = local
        self.ping()
        return Departure(self._pinged, positions, tuple(self._bridge.copied), tickets)

    def end(self) -> None:
        """No more copies, and none goes any more: all have gone, or the other side has died. Idempotent."""
        if not self._is_over:
            self.copies.end()
            self._is_over = True
            self.carries_local = False
            self._bridge.stop_copies(self._send_copy)
            self._release(self._held)
