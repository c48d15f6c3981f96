"""Waits of one and the same length, with one timer for all of them: who came first expires first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_TIMER_GRAIN_SECONDS = 0.001
"""uvloop's clock counts whole milliseconds: what is due within one is due."""


class Deadlines(Generic[Item]):
    """`on_expired(item)` is called once, `seconds` after `add(item)`, unless it was removed before.

    A removal leaves the timer alone: it finds nothing due and is set for the next one. So a busy primary sets a timer
    once in `seconds`, not once for each connection.
    """

    def __init__(self, seconds: float, *, on_expired: Callable[[Item], None]) -> None:
        self._seconds = seconds
        self._on_expired = on_expired
        self._loop = asyncio.get_running_loop()
        self._due: OrderedDict[Item, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: Item) -> bool:
        return item in self._due

    def add(self, item: Item) -> None:
        """Begin `item`'s wait. One that waits already begins anew."""
        self._due.pop(item, None)
        self._due[item] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._expire)

    def remove(self, item: Item) -> None:
        """End `item`'s wait, if it waits."""
        self._due.pop(item, None)

    def clear(self) -> list[Item]:
        """End all waits; who waited, the first first."""
        waiting = list(self._due)
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waiting

    def _expire(self) -> None:
        # The spent timer stays in place meanwhile, so that an `add` from `on_expired` sets no second one.
        try:
            self._expire_due(self._loop.time() + _TIMER_GRAIN_SECONDS)
        finally:
            self._timer = None
            if self._due:
                first = next(iter(self._due.values()))
                self._timer = self._loop.call_later(max(0.0, first - self._loop.time()), self._expire)

    def _expire_due(self, until: float) -> None:
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > until:
                return
            del self._due[item]
            self._on_expired(item)
