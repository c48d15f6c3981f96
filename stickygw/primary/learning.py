"""Keeps where the ids lead that workers say their application has minted, and tells them when it is done."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from stickygw.observability.counters import Counters
from stickygw.observability.drops import Drops
from stickygw.routing.router import Router
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import Learn, Learnt

log = logging.getLogger("stickygw.learning")

MAX_WAITING = 4096
"""Words to one worker that wait for its link; the oldest is dropped first: nobody waits for it any more."""


class Learning:
    """The ids of all workers, put into the router's table. Made on the running loop.

    `send` and `wait_writable` are those of a worker's link.
    """

    def __init__(
        self,
        router: Router,
        *,
        send: Callable[[WorkerId, Learnt], bool],
        wait_writable: Callable[[WorkerId, Callable[[], None]], None],
        counters: Counters,
    ) -> None:
        self._router = router
        self._send = send
        self._wait_writable = wait_writable
        self._counters = counters
        self._drops = Drops("ids_not_learnt", counters=counters, log=log)
        self._clock = asyncio.get_running_loop().time
        self._waiting: dict[WorkerId, deque[Learnt]] = {}

    def received(self, worker: WorkerId, slot: Slot, message: Learn) -> None:
        """The worker, which has or had `slot`, has minted these ids."""
        self.learn(slot, message.keys)
        learnt = Learnt(message.ticket)
        if worker in self._waiting:
            self._waiting[worker].append(learnt)
        elif not self._send(worker, learnt):
            self._waiting[worker] = deque([learnt], MAX_WAITING)
            self._wait_writable(worker, partial(self._flush, worker))

    def learn(self, slot: Slot, keys: Iterable[bytes]) -> None:
        """The worker of `slot` has minted the ids of these keys, be it before our time."""
        for key in keys:
            if self._router.learn(key, slot, self._clock()):
                self._counters.add("ids_learnt")
            else:
                self._drops.add("table_full", f"an id of slot {slot} is not kept: the table is full of keys in use")

    def gone(self, worker: WorkerId) -> None:
        """`worker` has ended: nobody there waits for a word."""
        self._waiting.pop(worker, None)

    def _flush(self, worker: WorkerId) -> None:
        waiting = self._waiting.get(worker)
        while waiting:
            if not self._send(worker, waiting[0]):
                self._wait_writable(worker, partial(self._flush, worker))
                return
            waiting.popleft()
        self._waiting.pop(worker, None)
