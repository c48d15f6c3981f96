"""Bots of examples/game that play beside a test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from support.game_example import bots as example
from support.waiting import wait_until

SECONDS = 30.0
"""For what should take a second, on a machine that has better things to do."""


@dataclass(frozen=True)
class Playing:
    """`bots` that play, and what they have seen together."""

    bots: list[example.Bot]
    tally: example.Tally

    async def ticks(self, count: int) -> None:
        """Until every bot has seen so many further ticks, its own connection lost meanwhile or not."""
        goals = [(bot, bot.tick + count) for bot in self.bots]
        await self.until(lambda: all(bot.tick >= tick for bot, tick in goals))

    async def points(self, count: int) -> None:
        """Until so many points have been made."""
        await self.until(lambda: sum(bot.score for bot in self.bots) >= count)

    @property
    def places(self) -> dict[str, set[int]]:
        """The slots on which each match was seen."""
        return self.tally.slots

    def check(self) -> None:
        """Nobody has seen anything that cannot be."""
        assert not self.tally.violations, example.summary(self.tally)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until `condition()`; fails as soon as somebody has seen what cannot be, for they may play no longer."""

        def is_so() -> bool:
            self.check()
            return condition()

        await wait_until(is_so, seconds=SECONDS)


@asynccontextmanager
async def playing(url: str, *, matches: int, bots_each: int, hz: float) -> AsyncIterator[Playing]:
    """They play until the context ends, and have then seen nothing that cannot be."""
    tally = example.Tally()
    ids = await example.minted(url, matches)
    bots = [
        example.Bot(url, id, tally, hz=hz, random=random.Random(f"{number} {bot}"))
        for number, id in enumerate(ids)
        for bot in range(bots_each)
    ]
    game = Playing(bots, tally)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bot.play()) for bot in bots]
        try:
            await game.until(lambda: all(bot.tick for bot in bots))
            yield game
        finally:
            for task in tasks:
                task.cancel()
    game.check()
