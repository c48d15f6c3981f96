"""Whose each connection is, from the moment a worker has it: until it ends, moves, or is lost with its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from stickygw.ipc.link import Link
from stickygw.observability.counters import Counters
from stickygw.primary.slots import Slots
from stickygw.primary.taker import Taker
from stickygw.routing.router import Router
from stickygw.types import HandOverId, Slot, WorkerId

LEFT_SECONDS = 5.0
"""What a worker had that died while it moved is kept in mind so long: the other one may have adopted it."""

_NOBODYS = (Slot(-1), None)


class Takers:
    """The owners of slots, and those that were it and still have connections.

    `on_taken(taker, ids)`: other workers know already that this one has taken these, which were in flight.
    """

    def __init__(
        self,
        router: Router,
        slots: Slots,
        counters: Counters,
        *,
        on_taken: Callable[[Taker, list[HandOverId]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._router = router
        self._slots = slots
        self._counters = counters
        self._on_taken = on_taken
        self._all: dict[WorkerId, Taker] = {}
        self._left: dict[HandOverId, tuple[Slot, bytes | None]] = {}
        """Of workers that died while they moved: slots and keys of what nobody has adopted yet."""

    def __iter__(self) -> Iterator[Taker]:
        return iter(self._all.values())

    def get(self, worker: WorkerId) -> Taker | None:
        """One that is not gone."""
        return self._all.get(worker)

    def come(self, worker: WorkerId, slot: Slot, link: Link) -> Taker:
        """The worker takes connections of `slot` from now on; the same one again if it has come before."""
        return self._all.setdefault(worker, Taker(worker, slot, link, now=self._clock()))

    def adopt(
        self,
        worker: WorkerId,
        slot: Slot,
        link: Link,
        connections: Iterable[tuple[HandOverId, bytes | None]],
        *,
        is_draining: bool,
    ) -> None:
        """A worker from before our time has these, each with its key. It is another matter whether the slot is its.

        One that drains may have given some away meanwhile.
        """
        now = self._clock()
        taker = Taker(worker, slot, link, now=now)
        taker.is_moving = is_draining
        for identifier, key in connections:
            if is_draining and any(identifier in other.taken for other in self):
                continue  # it has come over there
            other, other_key = self._let_go(identifier)
            if other_key is not None:
                self._router.ended(other_key, other, now)
            taker.taken[identifier] = key if key is not None and self._router.adopt(key, slot, now) else None
        self._all[worker] = taker

    def begin_to_move(self, worker: WorkerId) -> None:
        """The worker was told to give its connections to others, which will say so."""
        taker = self.get(worker)
        if taker is not None:
            taker.is_moving = True

    def moved_from(self, worker: WorkerId) -> tuple[int, int]:
        """How many of the worker's connections others have said that they have, and how many it has still."""
        taker = self.get(worker)
        return (0, 0) if taker is None else (taker.moved, len(taker.taken))

    def moved_to(self, taker: Taker, ids: list[HandOverId]) -> None:
        """These have come to it from another worker."""
        now = self._clock()
        for identifier in ids:
            slot, key = self._let_go(identifier)
            taker.taken[identifier] = key
            if key is not None and slot != taker.slot:
                self._router.moved(key, slot, taker.slot, now)
        self._counters.add("moves", "moved", len(ids))
        self._slots.count(taker.slot)

    def ended(self, taker: Taker, ids: Iterable[HandOverId]) -> None:
        """These are over."""
        now = self._clock()
        for identifier in ids:
            key = taker.taken.pop(identifier, None)
            if key is not None:
                self._router.ended(key, taker.slot, now)
        self._slots.count(taker.slot)

    def gone(self, worker: WorkerId) -> Taker | None:
        """The worker is dead, and what it had with it; what was in flight is the caller's. None: it was none of us."""
        taker = self._all.pop(worker, None)
        if taker is None:
            return None
        if taker.is_moving:
            self._left.update((identifier, (taker.slot, key)) for identifier, key in taker.taken.items())
            self._loop.call_later(LEFT_SECONDS, self._forget, tuple(taker.taken))
        else:
            self.ended(taker, list(taker.taken))
        return taker

    def close(self) -> None:
        """Close our copies of what is still in flight. Idempotent."""
        for taker in self:
            for hand_over in taker.in_flight.values():
                hand_over.sock.close()
        self._all.clear()

    def _let_go(self, identifier: HandOverId) -> tuple[Slot, bytes | None]:
        """From which slot a connection comes that has moved, and its key; it is nobody's now."""
        for other in self:
            if identifier in other.in_flight:  # that it was taken there is still on its way to us
                self._on_taken(other, [identifier])
            if identifier in other.taken:
                self._slots.count(other.slot)
                other.moved += 1
                return other.slot, other.taken.pop(identifier)
        return self._left.pop(identifier, _NOBODYS)

    def _forget(self, ids: tuple[HandOverId, ...]) -> None:
        now = self._clock()
        for identifier in ids:
            slot, key = self._left.pop(identifier, _NOBODYS)
            if slot >= 0:
                self._counters.add("moves", "lost")
            if key is not None:
                self._router.ended(key, slot, now)
