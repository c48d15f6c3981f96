"""One exchange of a session with the store at a time: `Exchanges`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from stickygw.errors import SessionUnavailable
from stickygw.sessions.outage import Outage


class Exchanges:
    """Those of one session, `timeout` seconds each: answers on different connections may overtake each other.

    One deadline for all that meet at a store that doesn't answer: the wait for the turn counts too. `outage` hears
    whether the store answers, not of those who had no turn.
    """

    def __init__(self, timeout: float, outage: Outage) -> None:
        self._timeout = timeout
        self._outage = outage
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        """The next exchange is this block. Raises `SessionUnavailable` when the time is over."""
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline, self._turn:
                with self._heard(deadline):
                    yield
        except TimeoutError as error:
            if not deadline.expired():
                raise  # it is the application's
            raise SessionUnavailable(f"the session's turn at the store took longer than {self._timeout:g} s") from error

    @contextmanager
    def _heard(self, deadline: asyncio.Timeout) -> Iterator[None]:
        try:
            yield
        except SessionUnavailable:
            self._outage.begin()
            raise
        except asyncio.CancelledError:
            if deadline.expired():
                self._outage.begin()
            raise
        except Exception:
            self._outage.end()
            raise
        else:
            self._outage.end()
