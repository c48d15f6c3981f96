"""What came at some addresses while connections move here, for those that come later: `Record`. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from stickygw.bridge.base import Publication

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Of payloads, `OVERHEAD_BYTES` added for each."""

OVERHEAD_BYTES = 400
"""What keeping one publication costs beside its payload."""

Position = Mapping[bytes, int]
"""Of each origin the last number that somebody was given at an address."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A publication; `order` rises with each, whatever the address."""

    order: int
    address: str
    publication: Publication

    @property
    def size(self) -> int:
        """Bytes that it counts."""
        return OVERHEAD_BYTES + len(self.publication.payload)


in_order = attrgetter("order")


class Record:
    """Publications in the order in which they came. It is full with `max_bytes`; then what it has is to be forgotten
    (`clear`), and who comes later is told a gap where something was."""

    def __init__(self, *, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._kept: dict[str, list[Recorded]] = {}
        self._orders = itertools.count(1)
        self._bytes = 0
        self._max_bytes = max_bytes

    def begin(self, addresses: Iterable[str]) -> None:
        """Keep what comes at these from now on. Idempotent."""
        for address in addresses:
            self._kept.setdefault(address, [])

    def add(self, address: str, publication: Publication) -> bool:
        """It came, or was published here. False: it is not kept, for the record is full."""
        kept = self._kept.get(address)
        if kept is None:
            return True
        recorded = Recorded(next(self._orders), address, publication)
        if self._bytes + recorded.size > self._max_bytes:
            return False
        kept.append(recorded)
        self._bytes += recorded.size
        return True

    def mark(self) -> int:
        """An order behind what has come, and before what comes."""
        return next(self._orders)

    def clear(self) -> set[str]:
        """Forget what is kept, and go on; at which addresses something was."""
        forgotten = {address for address, kept in self._kept.items() if kept}
        self._kept = {address: [] for address in self._kept}
        self._bytes = 0
        return forgotten

    def beyond(self, positions: Mapping[str, Position]) -> list[Recorded]:
        """What is kept of these addresses and lies beyond the position there, in order."""
        found = [
            recorded
            for address, position in positions.items()
            for recorded in self._kept.get(address, ())
            if recorded.publication.number > position.get(recorded.publication.origin, 0)
        ]
        return sorted(found, key=in_order)

    def drop_until(self, positions: Mapping[str, Position]) -> None:
        """Forget what is not beyond: positions only grow, so nobody who comes later needs it."""
        for address, position in positions.items():
            kept = self._kept.get(address)
            if kept:
                self._kept[address] = [
                    recorded
                    for recorded in kept
                    if recorded.publication.number > position.get(recorded.publication.origin, 0)
                ]
                self._bytes -= sum(recorded.size for recorded in kept)
                self._bytes += sum(recorded.size for recorded in self._kept[address])


class Latest:
    """What came last, in order, whatever the address: `max_bytes` of it at most, then the oldest goes."""

    def __init__(self, *, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._kept: deque[Recorded] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._forgotten = -1  # the order of what went last

    def add(self, recorded: Recorded) -> None:
        """It came."""
        self._kept.append(recorded)
        self._bytes += recorded.size
        while self._bytes > self._max_bytes:
            oldest = self._kept.popleft()
            self._bytes -= oldest.size
            self._forgotten = oldest.order

    def since(self, mark: int, addresses: Collection[str]) -> list[Recorded]:
        """What came at these addresses after the `mark`."""
        later = itertools.takewhile(lambda recorded: recorded.order > mark, reversed(self._kept))
        return [recorded for recorded in later if recorded.address in addresses][::-1]

    def is_whole(self, mark: int) -> bool:
        """Whether nothing that came after the `mark` is forgotten."""
        return self._forgotten < mark
