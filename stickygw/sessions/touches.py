"""Extending the lives of the sessions in use, as long as they are: `keep_touching`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.sessions.outage import RETRY_SECONDS, Outage
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

TOUCH_BATCH = 8
"""So many sessions are touched at once: half of the store's connections, so that the others are served
meanwhile."""


Touches = Mapping[SessionId, Callable[[], Awaitable[None]]]


async def keep_touching(
    due: Callable[[], Touches], *, interval: float, outage: Outage, on_ended: Callable[[SessionId], None]
) -> None:
    """Call all that is `due` every `interval` seconds, until cancelled; not while the store is away.

    `on_ended` is called with the sessions that have ended. It must not raise.
    """
    while True:
        await asyncio.sleep(min(interval, RETRY_SECONDS) if outage.is_on else interval)
        if outage.is_on:
            continue
        try:
            await touch_all(due(), on_ended=on_ended)
        except Exception:
            log.exception("a defect ended a round of touches; the next one comes")


async def touch_all(touches: Touches, *, on_ended: Callable[[SessionId], None]) -> None:
    """Call each of `touches`, whatever becomes of the others; `on_ended` is called with the sessions that have ended.

    An outage is one warning, and a defect an error for each session. `on_ended` must not raise.
    """
    is_told = False
    left = iter(touches.items())
    while batch := tuple(islice(left, TOUCH_BATCH)):
        outcomes = await asyncio.gather(*(touch() for _, touch in batch), return_exceptions=True)
        for (id, _), outcome in zip(batch, outcomes, strict=True):
            match outcome:
                case None:
                    pass
                case SessionEnded():
                    on_ended(id)
                case SessionUnavailable():
                    if not is_told:
                        is_told = True
                        log.warning("sessions in use cannot be touched: %s", outcome)
                case _:
                    log.error("a defect while a session was touched", exc_info=outcome)
