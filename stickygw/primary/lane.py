"""One slot as its hand-overs see it: who takes its connections, and what waits for that worker."""

from __future__ import annotations

from collections import OrderedDict

from stickygw.primary.offered import HandOver
from stickygw.primary.taker import Taker
from stickygw.routing.load import Load, SlotView
from stickygw.types import HandOverId, Slot

LEAST_SHARE = 0.05


class Lane:
    """The state of one slot. `taker` is its owner; None while it has no worker that has started."""

    __slots__ = ("is_drained", "is_flush_due", "max_connections", "queue", "slot", "taker", "view")

    def __init__(self, slot: Slot, *, max_connections: int) -> None:
        self.slot = slot
        self.max_connections = max_connections
        self.taker: Taker | None = None
        self.is_drained = False
        self.is_flush_due = False
        """Whether a call that offers what is queued is on its way."""
        self.queue: OrderedDict[HandOverId, HandOver] = OrderedDict()
        """Not offered yet: the worker restarts or stalls, or its link is full."""
        self.view = SlotView(slot, is_ready=False, is_full=False, connections=0)
        """What the router sees of it, as of the last `count` and `look`."""

    @property
    def is_ready(self) -> bool:
        """Whether its worker takes connections now."""
        return self.taker is not None and not self.taker.overdue

    def count(self) -> None:
        """Bring the view up to date, but for the worker's load. The hot part: twice for each connection."""
        view, taker = self.view, self.taker
        connections = len(self.queue)
        if taker is None:
            view.is_ready = False
        else:
            connections += len(taker.in_flight) + len(taker.taken)
            view.is_ready = not taker.overdue
        view.connections = connections
        view.is_full = connections >= self.max_connections

    def look(self, now: float, *, lag_limit: float, slow_start: float) -> None:
        """Bring all of the view up to date."""
        self.count()
        view, taker = self.view, self.taker
        view.is_drained = self.is_drained
        view.is_lagging = taker is not None and taker.lag(now) > lag_limit
        view.share = 1.0 if taker is None else _share(now - taker.ready_at, slow_start)
        view.load = Load() if taker is None else taker.load


def _share(age: float, slow_start: float) -> float:
    """Of a full worker's first visits: it grows over `slow_start` seconds, from a little, so that it does begin."""
    return min(1.0, max(LEAST_SHARE, age / slow_start)) if slow_start else 1.0
