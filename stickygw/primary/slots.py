"""The slots that exist, and what the router sees of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from stickygw.primary.lane import Lane
from stickygw.routing.router import SlotView
from stickygw.types import Slot

VIEW_SECONDS = 1.0
"""How old what the router sees of a slot's load may be. How many connections it has is never old."""


class Slots:
    """Each slot's lane, and views of all of them that are made anew only for lanes that have changed."""

    def __init__(self, *, max_connections: int, lag_limit: float, slow_start: float) -> None:
        self._max_connections = max_connections
        self._lag_limit = lag_limit
        self._slow_start = slow_start
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Slot, Lane] = {}
        self._views: dict[Slot, SlotView] = {}
        self._changed: set[Lane] = set()
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
        lane = self._lanes[slot] = Lane(slot, max_connections=self._max_connections)
        self._see(lane, self._loop.time())  # at once, so that the views are in the order of the slots
        if self._timer is None:
            self._timer = self._loop.call_later(VIEW_SECONDS, self._see_all_again)

    def close(self, slot: Slot) -> Lane:
        """The slot does not exist any more. What was its lane."""
        lane = self._lanes.pop(slot)
        self._changed.discard(lane)
        self._views.pop(slot, None)
        return lane

    def has_changed(self, slot: Slot) -> None:
        """The slot, if it exists, is not as its view shows it."""
        lane = self._lanes.get(slot)
        if lane is not None:
            self._changed.add(lane)

    @property
    def views(self) -> list[SlotView]:
        """What the router is to see of the slots now."""
        if self._changed:
            now = self._loop.time()
            for lane in self._changed:
                self._see(lane, now)
            self._changed.clear()
        return list(self._views.values())

    def stop(self) -> None:
        """Views grow old from now on. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _see(self, lane: Lane, now: float) -> None:
        self._views[lane.slot] = lane.view(now, lag_limit=self._lag_limit, slow_start=self._slow_start)

    def _see_all_again(self) -> None:
        # A worker grows up, or says nothing, without any event.
        self._changed.update(self._lanes.values())
        self._timer = self._loop.call_later(VIEW_SECONDS, self._see_all_again)
