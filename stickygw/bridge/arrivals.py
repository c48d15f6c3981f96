"""The rooms' part of moving connections from another worker, at the one they come to: `Arrivals`. Pure.

docs/explanation/live-move.md tells the whole; `departures` is the other side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from stickygw.bridge.addresses import DIRECT, is_room, local_address, room_of
from stickygw.bridge.base import Bridge, OnCopy, Publication
from stickygw.bridge.copies import Copies
from stickygw.bridge.hub import Hub
from stickygw.bridge.record import MAX_RECORD_BYTES, Latest, Position, Record, Recorded, in_order
from stickygw.bridge.room import Target
from stickygw.bridge.withheld import Withheld
from stickygw.wire.envelope import CLOSE
from stickygw.wire.prepared import PreparedMessage


class Arrivals:
    """One move link, at the side that connections come to.

    `hold` and `release` keep addresses subscribed without members; `add_groups` is told which messages in several rooms
    a newcomer has had; `send_listening(number, addresses)` tells the other side from when on these are recorded;
    `on_gap` is called with rooms in which a newcomer may have missed something; `close` carries an order to close out.
    """

    def __init__(
        self,
        hub: Hub,
        bridge: Bridge,
        withheld: Withheld,
        *,
        join: Callable[[str, Target], object],
        hold: Callable[[Iterable[str]], None],
        release: Callable[[Iterable[str]], None],
        add_groups: Callable[[Target, Iterable[bytes]], None],
        close: Callable[[Target, Publication], None],
        send_copy: OnCopy,
        send_listening: Callable[[int, list[str]], None],
        on_gap: Callable[[list[str]], None],
        is_same_slot: bool,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._hub = hub
        self._bridge = bridge
        self._withheld = withheld
        self._join = join
        self._hold = hold
        self._release = release
        self._add_groups = add_groups
        self._close = close
        self._send_copy = send_copy
        self._send_listening = send_listening
        self._on_gap = on_gap
        self._is_same_slot = is_same_slot
        self.carries_local = False
        """Whether the other side is to have what is published for this worker alone: from when on it takes copies as
        they come, so that they stay in order."""
        self.copies = Copies(bridge, on_open=self._begin, ignores_store=is_same_slot)
        self._record = Record(max_bytes=max_record_bytes)
        self._asked: dict[str, None] = {}  # not recorded so far
        self._held: dict[str, None] = {}
        self._number = 0  # of the last Listening
        self._sure_from: dict[str, int] = {}  # from which Listening on nothing was missed there
        self._due: dict[str, None] = {}  # what the next one is to name
        self._keys: dict[bytes, int] = {}  # of another slot, those that have come, and where the record was then
        self._local = Latest(max_bytes=max_record_bytes)  # what was published for this worker alone since
        self._is_renewing = False
        self._owed: Callable[[str], bool] = lambda _address: False
        self._own_at_first: dict[str, int] = {}  # our number when we were told of an address: perhaps never copied
        self._own_before: dict[str, int] = {}  # our number when the record of it began
        self._copied_before: dict[str, dict[bytes, int]] = {}  # what had come as copies by then, over other links too
        self._copied_there: Collection[bytes] = ()  # of whom the other side has copies
        self._is_over = False
        bridge.copy_to(send_copy, with_local=False)

    # Listening

    def sent(self) -> None:
        """The store has answered all that we published, or it is lost: to be called when our `Settled` goes."""
        self._owed = self._bridge.owed()

    def rooms(self, addresses: Sequence[str]) -> None:
        """Members of the other side are in these. `send_listening` follows, when they are recorded."""
        for address in addresses:
            if address not in self._held and not self._is_over:
                self._held[address] = self._asked[address] = None
                self._own_at_first[address] = self._own_number(address)
                self._bridge.subscribe(address)
                self._hold((address,))
        if self.copies.is_open:
            self._begin()

    def _begin(self) -> None:
        if self._asked and not self._is_over:
            asked, self._asked = list(self._asked), {}
            self._bridge.ping(lambda _is_answered: self._listen(asked))

    def _listen(self, addresses: list[str]) -> None:
        if self._is_over:
            return
        for address in addresses:
            self._record.begin(_places(address) if self._is_same_slot else (address,))
            self._own_before[address] = self._own_number(address)
            came = self._bridge.position_of(address)
            self._copied_before[address] = {each: came[each] for each in self._bridge.copied if each in came}
        self._tell(addresses)

    def _own_number(self, address: str) -> int:
        return self._bridge.position_of(address).get(self._bridge.origin, 0)

    def _tell(self, addresses: list[str]) -> None:
        self._number += 1
        self._sure_from.update(dict.fromkeys(addresses, self._number))
        self._send_listening(self._number, addresses)

    def gap(self, addresses: Iterable[str]) -> None:
        """The bridge has told that something may have been missed here. Who comes may miss it too, until the other side
        has got all that was published before: then it has it from there, or was told there."""
        missed = [address for address in addresses if address in self._sure_from]
        for address in missed:
            self._sure_from[address] = sys.maxsize  # until the Listening that is to come
            self._due[address] = None
        if missed and not self._is_renewing:
            self._renew()

    def _renew(self) -> None:
        due, self._due = list(self._due), {}
        self._is_renewing = bool(due)
        if due and not self._is_over:
            self._tell(due)

    # What comes, and is published here

    def key_comes(self, key: bytes) -> None:
        """What is kept for an affinity key is here now, and its connections are not: what is published for this worker
        alone from now on is for them too. (Of the same slot, that is so for everybody.)"""
        self._carry_local()
        if not self._is_same_slot:
            self._keys.setdefault(key, self._record.mark())

    def published_local(self, address: str, publication: Publication) -> None:
        """It was published here for this worker alone, `address` being a `local_address`."""
        if self._keys:
            self._local.add(Recorded(self._record.mark(), address, publication))

    def _carry_local(self) -> None:
        """A room of one slot is in two workers from now on."""
        if self._is_same_slot and not self.carries_local and not self._is_over:
            self.carries_local = True
            self._bridge.copy_to(self._send_copy, with_local=True)

    def received(self, address: str, publication: Publication) -> None:
        """The bridge has brought it, or it was published here: with origin and number."""
        if not self._record.add(address, publication):
            forgotten = self._record.clear()
            if not self._record.add(address, publication):
                forgotten.add(address)
            self.gap([each for each in self._sure_from if not forgotten.isdisjoint(_places(each))])

    # Who comes

    @property
    def can_arrive(self) -> bool:
        """Whether another connection can be taken now. If not, it is to be refused."""
        return not self._withheld.is_full and not self._is_over

    def position(self, pinged: int, positions: Mapping[str, Position], copied: Collection[bytes]) -> None:
        """Where those stand that come next: for each `Position`, before its connections arrive. `copied`: see
        `Departure`."""
        self._carry_local()
        self._copied_there = copied
        self._record.drop_until(positions)
        if pinged >= self._number:
            self._renew()

    def arrive(
        self,
        member: Target,
        addresses: Sequence[str],
        groups: Sequence[bytes],
        *,
        key: bytes | None = None,
        pinged: int,
        positions: Mapping[str, Position],
    ) -> None:
        """`member`, of the affinity `key`, is here: it joins, and is given what it has not been given. It can be
        delivered to."""
        for address in addresses:
            self._join(address, member)
        places = _places if self._is_same_slot else lambda address: (address,)
        own = {place: positions.get(place, {}) for address in (DIRECT, *addresses) for place in places(address)}
        missed = self._record.beyond(own)
        rooms = list(filter(is_room, addresses))
        mark = sys.maxsize if key is None else self._keys.get(key, sys.maxsize)  # nothing comes after that
        missed += self._local.since(mark, set(map(local_address, rooms)))
        missed.sort(key=in_order)
        for place, position in own.items():
            self._withheld.add(member, place, self._others(position), self._bridge.position_of(place), owner=self)
        had = set(groups)
        self._add_groups(member, had)
        given: list[tuple[str, PreparedMessage]] = []
        orders: list[Publication] = []
        for recorded in missed:
            publication = recorded.publication
            if recorded.address == DIRECT and not member.is_meant(publication.to):
                continue
            if publication.opcode == CLOSE:
                orders.append(publication)
            elif not publication.group or publication.group not in had:
                given.append((room_of(recorded.address), PreparedMessage(publication.opcode, publication.payload)))
            if publication.group:
                had.add(publication.group)
        self._add_groups(member, had)
        self._tell_gaps(addresses, pinged, positions)
        if rooms and not self._local.is_whole(mark):
            self._on_gap(rooms)
        self._hub.give_missed(member, given)
        for order in orders:
            self._close(member, order)

    def arrived(self) -> None:
        """All of a batch are here: what they had and is on its way comes before the answer to a ping.

        Not what the other side had as copies of further workers, to which it gives too: the store may not have that
        yet. When the move ends it has, for each of them waits for the store before its last word.
        """
        self._forget_at_pong(self._withheld.added, () if self._is_over else self._copied_there)

    def _forget_at_pong(self, added: int, besides: Collection[bytes]) -> None:
        def ponged(is_answered: bool) -> None:
            if is_answered or not self._bridge.is_heard(DIRECT):
                self._withheld.forget_until(added, owner=self, besides=besides)
            else:  # it is slow, and either answers at last or counts as away
                self._forget_at_pong(added, besides)

        if self._withheld:
            self._bridge.ping(ponged)

    def _others(self, position: Position) -> dict[bytes, int]:
        return {origin: number for origin, number in position.items() if origin != self._bridge.origin}

    def _tell_gaps(self, addresses: Sequence[str], pinged: int, positions: Mapping[str, Position]) -> None:
        """Not where the store is away: who is here when it is back is told then."""
        gaps = [
            address
            for address in addresses
            if (self._sure_from.get(address, pinged + 1) > pinged and self._bridge.is_heard(address))
            or any(  # what it had before the record began, and before the store had it
                positions.get(address, {}).get(origin, 0) < number
                for origin, number in self._copied_before.get(address, {}).items()
            )
            or (
                self._owed(address)
                and (
                    self._own_at_first.get(address, 0)
                    or positions.get(address, {}).get(self._bridge.origin, 0) < self._own_before.get(address, 0)
                )
            )
        ]
        if gaps:
            self._on_gap(gaps)

    def end(self) -> None:
        """Nobody else comes: the other side has said so, or died. Idempotent."""
        if not self._is_over:
            self._is_over = True
            self.carries_local = False
            self.copies.end()
            self._bridge.stop_copies(self._send_copy)
            self._record, self._local = Record(max_bytes=0), Latest(max_bytes=0)
            self._release(self._held)
            self.arrived()


def _places(address: str) -> tuple[str, ...]:
    return (address, local_address(address)) if is_room(address) else (address,)
