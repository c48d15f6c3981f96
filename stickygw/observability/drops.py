"""What was dropped: all of it counted, and logged once a second at most, so that a flood makes no flood of logs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from stickygw.observability.counters import Counters

LOG_EVERY_SECONDS = 1.0


class Drops:
    """Counts drops as `name` under their reason. Every reason has a log line of its own once a second."""

    def __init__(
        self, name: str, *, counters: Counters, log: logging.Logger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._counters = counters
        self._log = log
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # when, and how many had been counted by then

    def add(self, why: str, text: str, *, level: int = logging.WARNING) -> None:
        """One was dropped for the reason `why`; `text` says it in full."""
        self._counters.add(self._name, why)
        count, now = self._counters.value(self._name, why), self._clock()
        at, before = self._logged.get(why, (now - LOG_EVERY_SECONDS, count - 1))
        if now - at < LOG_EVERY_SECONDS:
            return
        self._logged[why] = now, count
        more = count - before - 1
        self._log.log(level, "%s%s", text, f" (and {more} more like it)" if more else "")
