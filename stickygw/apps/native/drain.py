"""Closes the connections of a worker that is replaced: one after the other, so that they do not all come back at once.

`closing_times` decides when, `SpreadClosing` carries it out.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from random import Random
from typing import Generic, TypeVar

C = TypeVar("C")


def closing_times(count: int, *, spread_seconds: float, random: Random) -> list[float]:
    """When each of `count` connections is closed, in seconds from now, in order.

    `spread_seconds` has as many equal parts, and each closes at some moment of its own part: evenly spread, but in no
    step with the clients of other workers.
    """
    part = spread_seconds / count if count else 0.0
    return [(index + random.random()) * part for index in range(count)]


class SpreadClosing(Generic[C]):
    """Calls `close(connection)` for each of `connections`, in random order, within `spread_seconds`; one timer for all.

    It holds connections that end by themselves meanwhile until their time comes: closing them is nothing.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: Iterable[C],
        *,
        spread_seconds: float,
        random: Random,
        close: Callable[[C], None],
    ) -> None:
        self._loop = loop
        self._random = random
        self._close = close
        now = loop.time()
        self._ends_at = now + spread_seconds
        order = list(connections)
        random.shuffle(order)
        times = closing_times(len(order), spread_seconds=spread_seconds, random=random)
        # The number keeps connections from being compared. The list is sorted, so it is a heap.
        self._due = [(now + time, number, order[number]) for number, time in enumerate(times)]
        self._count = len(order)
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def add(self, connection: C) -> None:
        """One whose handshake was under way has opened: it is closed at some moment of the time that is left."""
        now = self._loop.time()
        when = now + self._random.random() * max(0.0, self._ends_at - now)
        heapq.heappush(self._due, (when, self._count, connection))
        self._count += 1
        self._wait()

    def cancel(self) -> None:
        """Close no more of them."""
        self._due.clear()
        self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due[0][0], self._close_due) if self._due else None

    def _close_due(self) -> None:
        now = max(self._loop.time(), self._due[0][0])  # a timer may come a moment early
        while self._due and self._due[0][0] <= now:
            self._close(heapq.heappop(self._due)[2])
        self._wait()
