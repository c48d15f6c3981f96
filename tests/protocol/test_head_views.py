"""The worker reads from a passed socket the very head that the primary saw by looking, and what came behind it.

A head that two parsers read differently is how requests are smuggled; here it is one parser, and the same bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from corpus import CASES, VALID, Case
from support.waiting import wait_until

from stickygw import App
from stickygw.apps.native.endpoint import Arrival
from stickygw.apps.native.runtime import Identity, Runtime
from stickygw.bridge.hub import Hub
from stickygw.bridge.memory import MemoryBridge, MemoryBus
from stickygw.config.settings import Settings
from stickygw.observability.counters import Counters
from stickygw.primary.opening import Opening
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.request_head import Head
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.types import GatewayId, HandOverId, Slot
from stickygw.wire.link import Ended, Message, Offer, Taken
from stickygw.worker.intake import Intake

BEHIND = b"\x81\x85\0\0\0\0hello" + bytes(range(256))


class Told:
    """The link to the primary: keeps what the worker says."""

    def __init__(self) -> None:
        self.taken: list[HandOverId] = []
        self.ended: list[HandOverId] = []

    def send(self, message: Message) -> bool:
        if isinstance(message, Taken):
            self.taken += message.ids
        else:
            assert isinstance(message, Ended)
            self.ended += message.ids
        return True

    def wait_writable(self, callback: Callable[[], None]) -> None:
        raise AssertionError("it is always writable")


class Seen:
    """The endpoint: keeps what arrives and closes it."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []

    async def serve(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        arrival.transport.abort()
        arrival.on_ended()


class Worker:
    """A worker's intake between a link and an endpoint that only look."""

    def __init__(self) -> None:
        counters = Counters()
        self.runtime = Runtime(
            App(),
            identity=Identity(Slot(0), 1, 1, GatewayId("00000000")),
            settings=Settings(),
            sessions=Sessions(MemorySessionStore(), ttl=60),
            hub=Hub(counters),
            bridge=MemoryBridge(MemoryBus(), on_publication=lambda address, publication: None),
            cookie_keys=CookieKeys([b"k" * 32]),
            counters=counters,
        )
        self.told = Told()
        self.seen = Seen()
        self._intake = Intake(self.told, self.runtime)  # type: ignore[arg-type]
        self._intake._endpoint = self.seen  # type: ignore[assignment]
        self._ids = itertools.count(1)

    def offer(self, sock: socket.socket) -> HandOverId:
        """Offer a copy of `sock`, as it comes out of the link."""
        id = HandOverId(next(self._ids))
        self._intake.offered(Offer(id, None, 0, None, "127.0.0.1", 1, False, "test"), sock.dup().detach())
        return id


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0), backlog=10) as listener:
        yield listener


@asynccontextmanager
async def arrived(listener: socket.socket, data: bytes) -> AsyncIterator[socket.socket]:
    """The accepted end of a TCP connection whose client has sent `data`; all of it is there, unread."""
    with socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(data)
            assert len(accepted.recv(len(data), socket.MSG_PEEK | socket.MSG_WAITALL)) == len(data)
            yield accepted


def named(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@named(VALID)
async def test_the_worker_reads_the_head_that_the_primary_saw(listener: socket.socket, case: Case) -> None:
    worker = Worker()
    async with arrived(listener, case.data + BEHIND) as sock:
        looked_at = Opening(sock, host="127.0.0.1", port=1, is_trusted=False).look()
        id = worker.offer(sock)
        await wait_until(lambda: worker.told.ended)

    (arrival,) = worker.seen.arrivals
    assert isinstance(looked_at, Head)
    assert arrival.head == looked_at
    assert arrival.rest == BEHIND
    assert (worker.told.taken, worker.told.ended) == ([id], [id])


@named([case for case in CASES if not case.is_valid])
async def test_what_the_primary_refuses_the_worker_would_not_serve_either(listener: socket.socket, case: Case) -> None:
    worker = Worker()
    async with arrived(listener, case.data) as sock:
        assert not isinstance(Opening(sock, host="127.0.0.1", port=1, is_trusted=False).look(), Head)
        worker.offer(sock)
        await wait_until(lambda: worker.told.ended)

    await asyncio.sleep(0)
    assert worker.seen.arrivals == []
    assert worker.runtime.counters.value("arrivals_lost") == 1
