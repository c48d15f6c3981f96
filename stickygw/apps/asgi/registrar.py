"""Registers ids that the application has minted with the primary, before a client can bring one back."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from stickygw.observability.counters import Counters
from stickygw.observability.drops import Drops
from stickygw.routing.table import DEFAULT_LIMIT, LEARNT_SECONDS
from stickygw.wire.link import Learn, Learnt

log = logging.getLogger("stickygw.app")

LEARN_SECONDS = 1.0
"""An answer waits at most so long for the primary, which takes far less than a millisecond when it is well."""


class LinkFace(Protocol):
    """What is needed of the link to the primary."""

    def send(self, message: Learn) -> bool:
        """Send it now; False: the link is full or gone."""

    def wait_writable(self, callback: Callable[[], None]) -> None:
        """Call back once, when a message can be sent again."""


class Registrar:
    """Asks the primary to lead ids here. Until `connect`, and after `disconnect`, there is nobody to ask."""

    def __init__(self, *, counters: Counters, seconds: float = LEARN_SECONDS) -> None:
        self._drops = Drops("ids_not_learnt", counters=counters, log=log)
        self._seconds = seconds
        self._link: LinkFace | None = None
        self._tickets = itertools.count(1)
        self._asked: dict[int, asyncio.Event] = {}
        self._known: OrderedDict[bytes, float] = OrderedDict()  # keys, and when each was registered
        self._writable: asyncio.Event | None = None
        """Set, and forgotten, when the link takes messages again; None: nobody waits for that."""

    def connect(self, link: LinkFace) -> None:
        """From now on ids are registered over `link`; what comes in is given to `received`."""
        self._link = link

    def disconnect(self) -> None:
        """The primary is gone: who waits for it goes on. Idempotent."""
        self._link = None
        for known in self._asked.values():
            known.set()
        self._tell_writable()

    def learnt(self) -> list[bytes]:
        """For a new primary: the keys that lead here, as far as it is not too long ago."""
        return list(self._known)

    def received(self, message: Learnt) -> None:
        """What came on the link."""
        known = self._asked.get(message.ticket)
        if known is not None:  # else it comes too late: the answer has left
            known.set()

    async def register(self, keys: list[bytes]) -> None:
        """Return when requests with `keys` (`stickygw.routing.keys`) are led here, or nobody can see to that in time.

        An id that is not registered is counted (``ids_not_learnt``); its client is routed as one that has none.
        """
        if self._link is None:
            self._drops.add("no_primary", "there is no primary to lead a new id to its worker", level=logging.DEBUG)
            return
        message = Learn(next(self._tickets), keys)
        known = self._asked[message.ticket] = asyncio.Event()
        try:
            async with asyncio.timeout(self._seconds):
                while self._link is not None and not self._link.send(message):
                    await self._wait_writable()
                await known.wait()
            self._remember(keys)
        except TimeoutError:
            self._drops.add("late", f"an answer left before the primary knew its id: no word for {self._seconds:g} s")
        finally:
            del self._asked[message.ticket]

    def _remember(self, keys: list[bytes]) -> None:
        """As long as the primary's table does, and as many."""
        now = asyncio.get_running_loop().time()
        for key in keys:
            self._known[key] = now
            self._known.move_to_end(key)
        while len(self._known) > DEFAULT_LIMIT or (next(iter(self._known.values())) < now - LEARNT_SECONDS):
            self._known.popitem(last=False)

    async def _wait_writable(self) -> None:
        assert self._link is not None
        if self._writable is None:
            self._writable = asyncio.Event()
            self._link.wait_writable(self._tell_writable)
        await self._writable.wait()

    def _tell_writable(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
