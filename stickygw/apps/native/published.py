"""Waiting, for a bounded time, until the store has what was published: `wait_published`."""

from __future__ import annotations

import asyncio
import logging

from stickygw.bridge.base import Bridge

log = logging.getLogger("stickygw.move")

SENT_SECONDS = 1.0
"""Redis has so long to answer what was published; then it counts as away."""


async def wait_published(bridge: Bridge) -> None:
    """What was published before is answered by the store, or lost: or else the store is slow, and not waited for."""
    try:
        async with asyncio.timeout(SENT_SECONDS):
            await bridge.wait_sent()
    except TimeoutError:
        log.warning("move: the store does not answer; the move goes on without waiting for it")
