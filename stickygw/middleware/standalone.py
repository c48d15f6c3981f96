"""The sessions of an application that no gateway runs: `Standalone`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stickygw.sessions.registry import Sessions
from stickygw.sessions.service import SessionService


class Standalone:
    """Made by `make` for the event loop that asks first; a test client may have a new loop for each request.

    What was made for a loop that has ended is left to it: nothing of it can be awaited any more.
    """

    def __init__(self, make: Callable[[], SessionService]) -> None:
        self._make = make
        self._service: SessionService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def sessions(self) -> Sessions:
        """Those of the running loop."""
        loop = asyncio.get_running_loop()
        if self._service is None or self._loop is not loop:
            self._service, self._loop = self._make(), loop
            self._service.start()
        return self._service.sessions

    async def stop(self) -> None:
        """End what the running loop has. A request that comes later has a new one."""
        service, self._service = self._service, None
        if service is not None and self._loop is asyncio.get_running_loop():
            await service.stop()
