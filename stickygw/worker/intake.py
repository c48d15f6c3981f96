"""Takes the connections that the primary offers, and tells it in batches what became of them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from functools import partial

from stickygw.apps.native.endpoint import Arrival, Endpoint
from stickygw.apps.native.runtime import Runtime
from stickygw.connections.transport import SocketTransport
from stickygw.ipc.lasting_link import LastingLink
from stickygw.routing.request_head import Head, examine
from stickygw.types import HandOverId
from stickygw.wire.link import Came, Declined, DeclineReason, Ended, Message, Offer, Taken

log = logging.getLogger("stickygw.worker")

MAX_BATCH = 4096
"""Ids in one message; with at most 9 bytes an id it stays far below a link message's bound."""


class Intake:
    """The worker's side of hand-over.

    A connection counts as taken once its head was read here: until then the primary may give it to another worker.
    """

    def __init__(self, link: LastingLink, runtime: Runtime) -> None:
        self._link = link
        self._runtime = runtime
        self._endpoint = Endpoint(runtime)
        self._max_connections = runtime.settings.max_connections
        self._open: dict[HandOverId, bytes | None] = {}  # those that were taken and are not over, each with its key
        self.served = 0
        """Those that were taken so far."""
        self._is_stopping = False
        self._taken: list[HandOverId] = []
        self._came: list[HandOverId] = []
        self._ended: list[HandOverId] = []
        self._declined: list[Declined] = []
        self._is_scheduled = False

    @property
    def open_connections(self) -> int:
        """Those that were taken and are not over."""
        return len(self._open)

    def holdings(self) -> list[tuple[HandOverId, bytes | None]]:
        """For a new primary: the connections that are open, each with its affinity key. What happens to them from now
        on is reported when the link is to that one."""
        for reports in (self._came, self._taken, self._declined, self._ended):
            reports.clear()  # they were for the one before
        return list(self._open.items())

    def stop(self) -> None:
        """Take nothing more: offers are declined, and the primary routes them again."""
        self._is_stopping = True

    def offered(self, offer: Offer, fd: int) -> None:
        """Take or decline one offer. `fd` is owned here; -1: it was lost on the way."""
        if fd < 0:
            self._decline(offer, DeclineReason.NO_DESCRIPTOR)
            return
        if self._is_stopping or len(self._open) >= self._max_connections:
            os.close(fd)
            self._decline(offer, DeclineReason.STOPPING if self._is_stopping else DeclineReason.FULL)
            return
        # The family is never used again, and asking the kernel for it costs three system calls.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
        transport = SocketTransport(sock, self._runtime.loop, self._runtime.flusher)
        data = transport.receive_nowait() or b""
        self._taken.append(offer.id)
        self.served += 1
        self._schedule()
        head = examine(data)
        if not isinstance(head, Head):
            # The primary passed a complete head; only a client that reset in between leaves us without one.
            self._runtime.counters.add("arrivals_lost")
            transport.abort()
            self._ended.append(offer.id)
            return
        self._open[offer.id] = offer.key
        arrival = Arrival(offer, head, data[head.size :], transport, partial(self._connection_ended, offer.id))
        self._runtime.spawn(self._endpoint.serve(arrival))

    def came(self, offer: Offer) -> Callable[[], None] | None:
        """A connection comes from another worker, which was offered it. What to call at its end; None: no room."""
        if self._is_stopping or len(self._open) >= self._max_connections:
            return None
        self._open[offer.id] = offer.key
        self._came.append(offer.id)
        self._schedule()
        return partial(self._connection_ended, offer.id)

    def gave_away(self, id: HandOverId) -> None:
        """Another worker has one of ours, and tells the primary itself."""
        del self._open[id]

    def _connection_ended(self, id: HandOverId) -> None:
        del self._open[id]
        self._ended.append(id)
        self._schedule()

    def _decline(self, offer: Offer, why: DeclineReason) -> None:
        self._runtime.counters.add("offers_declined", why)
        self._declined.append(Declined(offer.id, why))
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._runtime.loop.call_soon(self._report)

    def _report(self) -> None:
        """Send what has piled up: taken and come first, so that nothing ends before it was here."""
        self._is_scheduled = False
        while self._came:
            if not self._sent(Came(self._came[:MAX_BATCH])):
                return
            del self._came[:MAX_BATCH]
        while self._taken:
            if not self._sent(Taken(self._taken[:MAX_BATCH])):
                return
            del self._taken[:MAX_BATCH]
        while self._declined:
            if not self._sent(self._declined[0]):
                return
            del self._declined[0]
        while self._ended:
            if not self._sent(Ended(self._ended[:MAX_BATCH])):
                return
            del self._ended[:MAX_BATCH]

    def _sent(self, message: Message) -> bool:
        """Whether `message` went out; if not, the rest follows when the link takes something again."""
        if self._link.send(message):
            return True
        self._is_scheduled = True
        self._link.wait_writable(self._report)
        return False
