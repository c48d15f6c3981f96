"""Riders by the hundred that echo and publish all the time, while their workers are replaced: `Ride`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.client import gather_bounded
from support.moving_clients import DEADLINE, Rider, abort_all, silence_of
from support.observed import quantile
from support.waiting import wait_until

STEP_SECONDS = 0.005
"""How often the load generator looks what is due."""


@dataclass(slots=True)
class Figures:
    """Of one stretch of time, in seconds; `lags` are the load generator's own."""

    delays: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    silence: float = 0.0

    def __str__(self) -> str:
        lag = f"own lag p99 {quantile(self.lags, 0.99) * 1000:.0f}, at most {max(self.lags) * 1000:.0f} ms"
        return (
            f"{len(self.delays)} echoes: p50 {quantile(self.delays, 0.5) * 1000:.1f}, "
            f"p99 {quantile(self.delays, 0.99) * 1000:.1f} ms, longest silence {self.silence * 1000:.0f} ms ({lag})"
        )


class Ride:
    """`riders` echo `echoes_a_second` times each; two in each room publish, altogether `published_a_second`."""

    def __init__(self, riders: list[Rider], *, echoes_a_second: float, published_a_second: float) -> None:
        self.riders = riders
        self._echoes_a_second = echoes_a_second
        self._published_a_second = published_a_second
        self._by_room: dict[str, list[Rider]] = {}
        for rider in riders:
            self._by_room.setdefault(rider.room, []).append(rider)
        self.publishers = [rider for riders in self._by_room.values() for rider in (riders[0], riders[-1])]
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """All have heard all publishers of their room when this returns, and go on."""
        for rider in self.publishers:
            rider.publish()
        await self._wait_heard()
        self._task = asyncio.create_task(self._go())

    async def pause(self) -> None:
        """Send no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def end(self) -> None:
        """Stop; wait until everybody has what is under way."""
        await self.pause()
        for rider in self.publishers:
            rider.publish()
        await self._wait_heard()
        await wait_until(lambda: all(rider.echoes_got == rider.echoes_sent for rider in self.riders), seconds=DEADLINE)

    async def figures(self, seconds: float) -> Figures:
        """Of the time since they were asked for last, or, at first, since the beginning; after `seconds`."""
        await asyncio.sleep(seconds)
        found = Figures([delay for rider in self.riders for delay in rider.delays], self._lags, silence_of(self.riders))
        self._lags = []
        for rider in self.riders:
            rider.delays.clear()
        return found

    @property
    def faults(self) -> list[str]:
        """Whatever was lost, doubled, out of order or closed."""
        found = [f"{rider}: {fault}" for rider in self.riders for fault in rider.faults]
        return found + [f"{rider}: closed, {rider.close_code}" for rider in self.riders if rider.ended.done()]

    async def _wait_heard(self) -> None:
        def have_heard() -> bool:
            return bool(self.faults) or all(
                rider.last.get(publisher.index) == publisher.published
                for publisher in self.publishers
                for rider in self._by_room[publisher.room]
            )

        await wait_until(have_heard, seconds=DEADLINE)

    async def _go(self) -> None:
        clock = asyncio.get_running_loop().time
        began, echoed, published = clock(), 0, 0
        count = len(self.riders)
        while True:
            seconds = clock() - began
            while echoed < seconds * self._echoes_a_second * count:
                self.riders[echoed % count].echo()
                echoed += 1
            while published < seconds * self._published_a_second:
                self.publishers[published % len(self.publishers)].publish()
                published += 1
            before = clock()
            await asyncio.sleep(STEP_SECONDS)
            self._lags.append(clock() - before - STEP_SECONDS)


@asynccontextmanager
async def riding(
    port: int,
    *,
    count: int,
    rooms: int,
    echoes_a_second: float = 1.0,
    published_a_second: float = 100.0,
    is_compressing: bool = False,
    padding: int = 0,
) -> AsyncIterator[Ride]:
    """`count` riders in `rooms` rooms who are under way."""

    async def enter(index: int) -> Rider:
        rider = Rider(index, f"r{index % rooms}", is_compressing=is_compressing, padding=padding)
        riders.append(rider)
        return await rider.connect(port)

    riders: list[Rider] = []
    ride = None
    try:
        await gather_bounded(40, *(enter(index) for index in range(count)))
        ride = Ride(riders, echoes_a_second=echoes_a_second, published_a_second=published_a_second)
        await ride.begin()
        yield ride
    finally:
        if ride is not None:
            await ride.pause()
        await abort_all(riders)
