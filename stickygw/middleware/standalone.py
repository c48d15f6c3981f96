"""The sessions of an application that no gateway runs: `Standalone`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stickygw.sessions.registry import Sessions
from stickygw.sessions.service import SessionService


class Standalone:
    """One service by `make` for each event loop that asks; a test client may have a new loop for each request.

    Nothing of a loop that is closed can be awaited any more: when the next is made, what it had is abandoned.
    """

    def __init__(self, make: Callable[[], SessionService]) -> None:
        self._make = make
        self._services: dict[asyncio.AbstractEventLoop, SessionService] = {}

    def sessions(self) -> Sessions:
        """Those of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._services:
            self._abandon_closed()
            service = self._services[loop] = self._make()
            service.start()
        return self._services[loop].sessions

    async def stop(self) -> None:
        """End what the running loop has, not what others have. A request that comes later has a new one."""
        self._abandon_closed()
        service = self._services.pop(asyncio.get_running_loop(), None)
        if service is not None:
            await service.stop()

    def _abandon_closed(self) -> None:
        for loop in [loop for loop in self._services if loop.is_closed()]:
            self._services.pop(loop).abandon()
