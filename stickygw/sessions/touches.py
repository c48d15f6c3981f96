"""Extending the lives of many sessions: `touch_all`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.sessions.session import Session

log = logging.getLogger("stickygw.sessions")

TOUCH_BATCH = 8
"""So many sessions are touched at once: half of the store's connections, so that the others are served
meanwhile."""


async def touch_all(sessions: Sequence[Session], *, on_ended: Callable[[Session], None]) -> None:
    """Touch each of `sessions`, whatever becomes of the others; `on_ended` is called with those that have ended.

    An outage is one warning, and a defect an error for each session. `on_ended` must not raise.
    """
    is_told = False
    for start in range(0, len(sessions), TOUCH_BATCH):
        batch = sessions[start : start + TOUCH_BATCH]
        outcomes = await asyncio.gather(*(session.touch() for session in batch), return_exceptions=True)
        for session, outcome in zip(batch, outcomes, strict=True):
            match outcome:
                case None:
                    pass
                case SessionEnded():
                    on_ended(session)
                case SessionUnavailable():
                    if not is_told:
                        is_told = True
                        log.warning("sessions in use cannot be touched: %s", outcome)
                case _:
                    log.error("a defect while a session was touched", exc_info=outcome)
