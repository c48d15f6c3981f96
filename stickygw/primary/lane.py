"""One slot as its hand-overs see it: who takes its connections, and what waits for that worker."""

from __future__ import annotations

from collections import OrderedDict

from stickygw.primary.offered import HandOver
from stickygw.primary.taker import Taker
from stickygw.routing.router import SlotView
from stickygw.types import HandOverId, Slot

LEAST_SHARE = 0.05


class Lane:
    """The state of one slot. `taker` is its owner; None while it has no worker that has started."""

    __slots__ = ("is_drained", "is_flush_due", "max_connections", "queue", "slot", "taker")

    def __init__(self, slot: Slot, *, max_connections: int) -> None:
        self.slot = slot
        self.max_connections = max_connections
        self.taker: Taker | None = None
        self.is_drained = False
        self.is_flush_due = False
        """Whether a call that offers what is queued is on its way."""
        self.queue: OrderedDict[HandOverId, HandOver] = OrderedDict()
        """Not offered yet: the worker restarts or stalls, or its link is full."""

    @property
    def connections(self) -> int:
        """Those with its owner, and those on their way to it."""
        return len(self.queue) + (self.taker.connections if self.taker is not None else 0)

    @property
    def is_full(self) -> bool:
        """Whether it is at its limit."""
        return self.connections >= self.max_connections

    @property
    def is_ready(self) -> bool:
        """Whether its worker takes connections now."""
        return self.taker is not None and not self.taker.overdue

    def view(self, now: float, *, lag_limit: float, slow_start: float) -> SlotView:
        """What the router is to see of it now."""
        connections = self.connections
        is_full = connections >= self.max_connections
        taker = self.taker
        if taker is None:
            return SlotView(self.slot, False, is_full, connections, is_drained=self.is_drained)
        return SlotView(
            self.slot,
            not taker.overdue,
            is_full,
            connections,
            is_drained=self.is_drained,
            is_lagging=taker.lag(now) > lag_limit,
            share=_share(now - taker.ready_at, slow_start),
            load=taker.load,
        )

    def send(self, hand_over: HandOver) -> bool:
        """Offer it to the worker; False: there is none, it stalls, or its link is full."""
        return self.taker is not None and self.taker.offer(hand_over)


def _share(age: float, slow_start: float) -> float:
    """Of a full worker's first visits: it grows over `slow_start` seconds, from a little, so that it does begin."""
    return min(1.0, max(LEAST_SHARE, age / slow_start)) if slow_start else 1.0
