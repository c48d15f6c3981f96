"""The slots that exist, and what the router sees of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from stickygw.primary.lane import Lane
from stickygw.routing.load import SlotView
from stickygw.types import Slot

VIEW_SECONDS = 1.0
"""How old what the router sees of a slot's load may be. How many connections it has is never old."""


class Slots:
    """Each slot's lane. `views` are all of theirs, in the order of the slots, always as new as the lanes' own."""

    def __init__(self, *, max_connections: int, lag_limit: float, slow_start: float) -> None:
        self._max_connections = max_connections
        self._lag_limit = lag_limit
        self._slow_start = slow_start
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Slot, Lane] = {}
        self.views: list[SlotView] = []
        self._timer: asyncio.TimerHandle | None = None

    def __getitem__(self, slot: Slot) -> Lane:
        return self._lanes[slot]

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def get(self, slot: Slot) -> Lane | None:
        """The slot's lane, if it exists."""
        return self._lanes.get(slot)

    def open(self, slot: Slot) -> None:
        """The slot exists from now on."""
        self._lanes[slot] = Lane(slot, max_connections=self._max_connections)
        self._list_views()
        if self._timer is None:
            self._timer = self._loop.call_later(VIEW_SECONDS, self._look_again)

    def close(self, slot: Slot) -> Lane:
        """The slot does not exist any more. What was its lane."""
        lane = self._lanes.pop(slot)
        self._list_views()
        return lane

    def count(self, slot: Slot) -> None:
        """The slot, if it exists, has more connections or fewer, or became ready or not."""
        lane = self._lanes.get(slot)
        if lane is not None:
            lane.count()

    def look(self, slot: Slot) -> None:
        """The slot, if it exists, has another worker, or that worker another load, or an operator changed it."""
        lane = self._lanes.get(slot)
        if lane is not None:
            self._look(lane)

    def stop(self) -> None:
        """Views grow old from now on. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _list_views(self) -> None:
        self.views = [lane.view for lane in self._lanes.values()]

    def _look(self, lane: Lane) -> None:
        lane.look(self._loop.time(), lag_limit=self._lag_limit, slow_start=self._slow_start)

    def _look_again(self) -> None:
        # A worker grows up, or says nothing, without any event.
        for lane in self:
            self._look(lane)
        self._timer = self._loop.call_later(VIEW_SECONDS, self._look_again)
