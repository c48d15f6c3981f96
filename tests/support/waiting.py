"""Waiting for what must become true, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable


async def wait_until(condition: Callable[[], object | Awaitable[object]], *, seconds: float = 10.0) -> None:
    """Return as soon as `condition()`, awaited where it can be, is true; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(0.005)


async def loop_turns(count: int = 5) -> None:
    """Let the loop look at its descriptors `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)
