"""How long a process that died waits before it is started again: at once the first time, then ever longer."""

from __future__ import annotations

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0
QUIET_SECONDS = 60.0
"""A process that lived so long has its earlier deaths forgiven."""

LEAST_SHARE = 0.75
"""Jitter takes at most a quarter of a delay away, so that slots that died together don't all start together."""


class RestartBackoff:
    """The delays of one slot's restarts: 0, then 0.1 s doubling to 10 s, until a quiet minute resets them."""

    __slots__ = ("_deaths", "_restarted_at")

    def __init__(self) -> None:
        self._deaths = 0
        self._restarted_at = 0.0

    def delay(self, *, now: float, jitter: float) -> float:
        """The seconds until the restart after a death at `now`; `jitter` is a random number from 0 to 1."""
        if self._deaths and now - self._restarted_at >= QUIET_SECONDS:
            self._deaths = 0
        delay = 0.0
        if self._deaths:
            # The exponent is bounded, or a slot that dies for weeks overflows the float.
            doubled = FIRST_DELAY_SECONDS * 2 ** min(self._deaths - 1, 16)
            delay = min(doubled, LONGEST_DELAY_SECONDS) * (LEAST_SHARE + (1 - LEAST_SHARE) * jitter)
        self._deaths += 1
        self._restarted_at = now + delay
        return delay
