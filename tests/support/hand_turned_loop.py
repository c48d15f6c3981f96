"""An event loop that turns when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast


class HandTurnedLoop:
    """Keeps what is scheduled until `turn`. What is for later is never called."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.ready.append(callback)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(seconds, callback, args, cast("asyncio.AbstractEventLoop", self))

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """Asked for by the handle."""

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()

    def turn_all(self) -> None:
        """Turn until nothing is scheduled."""
        while self.ready:
            self.turn()

    @contextmanager
    def running(self) -> Iterator[Any]:
        """It is the running loop meanwhile."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(cast("asyncio.AbstractEventLoop", self))
        try:
            yield
        finally:
            asyncio._set_running_loop(before)
