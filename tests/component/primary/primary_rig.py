"""The primary's path of a connection, in this process, between real client sockets and fake workers."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from support.waiting import wait_until

from stickygw.ipc.link import Link, link_pair
from stickygw.observability.counters import Counters
from stickygw.primary.acceptor import Acceptor
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.intake import Intake
from stickygw.primary.listener import Listener, bind
from stickygw.primary.refusal import Refusals
from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.routing.forwarded import TrustedProxies
from stickygw.routing.keys import parse_key
from stickygw.routing.router import Router, SlotView
from stickygw.routing.table import KeyTable
from stickygw.types import GatewayId, HandOverId, SessionId, Slot, WorkerId
from stickygw.wire.link import Came, Declined, DeclineReason, Ended, Message, Offer, Taken

DEADLINE = 10.0
GATEWAY = GatewayId("0badcafe")
KEYS = CookieKeys([b"k" * 32])


def head_of(path: str = "/ws", *fields: str) -> bytes:
    """A WebSocket handshake's head with `fields` added."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@functools.cache  # the same text in a later second too
def cookie_for(slot: int, session: str = "a" * 32) -> str:
    """A Cookie field of a client that belongs to `slot`."""
    claim = CookieClaim(SessionId(session), GATEWAY, Slot(slot), int(time.time()))
    return f"Cookie: stickygw={KEYS.sign(claim)}"


class FakeWorker:
    """The worker's end of its link: keeps the offers, and answers when the test says so."""

    def __init__(self, sock: socket.socket, worker: WorkerId) -> None:
        self.id = worker
        self.offers: list[Offer] = []
        self.sockets: dict[HandOverId, socket.socket] = {}
        self._link = Link(sock, on_message=self._received, on_closed=lambda: None)

    def _received(self, message: Message, fd: int) -> None:
        assert isinstance(message, Offer)
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        self.offers.append(message)
        self.sockets[message.id] = connection

    async def wait_offers(self, count: int) -> list[Offer]:
        await wait_until(lambda: len(self.offers) >= count)
        return self.offers

    def read(self, offer: Offer) -> bytes:
        """What is to be read of an offered connection now."""
        try:
            return self.sockets[offer.id].recv(1 << 20)
        except BlockingIOError:
            return b""

    def take(self, *offers: Offer) -> None:
        assert self._link.send(Taken([offer.id for offer in offers]))

    def adopt(self, *offers: Offer, of: FakeWorker) -> None:
        """Have connections of another worker, as when they have moved."""
        for offer in offers:
            self.sockets[offer.id] = of.sockets.pop(offer.id)
        assert self._link.send(Came([offer.id for offer in offers]))

    def end(self, *offers: Offer) -> None:
        for offer in offers:
            self.sockets.pop(offer.id).close()
        assert self._link.send(Ended([offer.id for offer in offers]))

    def decline(self, offer: Offer, why: DeclineReason = DeclineReason.FULL) -> None:
        self.sockets.pop(offer.id).close()
        assert self._link.send(Declined(offer.id, why))

    def die(self) -> None:
        """What the kernel does for a process that was killed."""
        self._link.close()
        for connection in self.sockets.values():
            connection.close()
        self.sockets.clear()


class Client:
    """A client's bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.get_running_loop().sock_recv(self.sock, size)

    async def read_to_end(self) -> bytes:
        """All that comes until the other side closes. Raises ConnectionResetError for an RST."""
        loop = asyncio.get_running_loop()
        data = b""
        async with asyncio.timeout(DEADLINE):
            while chunk := await loop.sock_recv(self.sock, 65536):
                data += chunk
        return data


class Rig:
    """Listener, acceptor, intake, hand-overs and refusals as `main` wires them; slots are put up by the test."""

    def __init__(
        self,
        directory: Path,
        *,
        slots: int = 2,
        is_unix: bool = False,
        keys: tuple[str, ...] = ("cookie",),
        trusted: tuple[str, ...] = (),
        header_timeout: float = DEADLINE,
        slot_wait: float = 6 * DEADLINE,
        slot_queue: int = 1000,
        max_connections: int = 1000,
        max_pending: int = 1000,
        max_pending_per_address: int = 1000,
        lag_limit: float = 3600.0,
        slow_start: float = 0.0,
    ) -> None:
        self.counters = Counters()
        self.table = KeyTable(linger=0.001)
        self.router = Router(
            gateway=GATEWAY,
            keys=[parse_key(key) for key in keys],
            first_visit="round_robin",
            cookie_name="stickygw",
            cookie_keys=KEYS,
            cookie_lifetime=3600,
            table=self.table,
            random=random.Random(1).randrange,
        )
        self.refusals = Refusals(counters=self.counters)
        self.hand_overs = HandOvers(
            router=self.router,
            refusals=self.refusals,
            counters=self.counters,
            slot_wait=slot_wait,
            slot_queue=slot_queue,
            max_connections=max_connections,
            lag_limit=lag_limit,
            slow_start=slow_start,
        )
        for slot in range(slots):
            self.hand_overs.open_slot(Slot(slot))
        self.intake = Intake(
            router=self.router,
            trusted=TrustedProxies(trusted),
            hand_overs=self.hand_overs,
            refusals=self.refusals,
            counters=self.counters,
            header_timeout=header_timeout,
            max_pending=max_pending,
            max_pending_per_address=max_pending_per_address,
        )
        self.listener: Listener = bind([f"unix:{directory}/gateway" if is_unix else "127.0.0.1:0"])[0]
        self.acceptor = Acceptor([self.listener], on_accepted=self.intake.accepted, counters=self.counters)
        self.acceptor.start()
        self._ids = map(WorkerId, count(1))
        self._workers: list[FakeWorker] = []
        self._to_close: list[Any] = []

    def slot_up(self, slot: int, *, send_buffer: int | None = None) -> FakeWorker:
        """Give the slot a worker that is ready; the one before it, if any, is retired by that."""
        worker = FakeWorker(*self.slot_up_unread(slot, send_buffer=send_buffer))
        self._workers.append(worker)
        return worker

    def slot_up_unread(self, slot: int, *, send_buffer: int | None = None) -> tuple[socket.socket, WorkerId]:
        """The same, with a worker that reads nothing: its end of the link, and its id."""
        worker = next(self._ids)
        ours, theirs = link_pair()
        if send_buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        theirs.setblocking(False)
        link = Link(
            ours,
            on_message=lambda message, fd: self.hand_overs.received(worker, message),  # type: ignore[arg-type]
            on_closed=lambda: self.hand_overs.worker_is_down(worker),
        )
        self._to_close += [link, theirs]
        self.hand_overs.worker_is_up(worker, Slot(slot), link)
        return theirs, worker

    def view(self, slot: int) -> SlotView:
        """What the router sees of the slot now."""
        return next(view for view in self.hand_overs.views if view.slot == slot)

    async def connect(self) -> Client:
        sock = socket.socket(socket.AF_UNIX if self.listener.path else socket.AF_INET)
        sock.setblocking(False)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each send is an arrival
        self._to_close.append(sock)
        await asyncio.get_running_loop().sock_connect(sock, self.listener.sock.getsockname())
        return Client(sock)

    async def client(self, data: bytes) -> Client:
        """A client that has sent `data`."""
        client = await self.connect()
        await client.send(data)
        return client

    async def wait_counted(self, name: str, label: str = "", count: int = 1) -> None:
        await wait_until(lambda: self.counters.value(name, label) >= count)

    def end_longest_wait(self) -> None:
        """What time does to whoever has waited for a slot longest, and to nobody else."""
        waits = self.hand_overs._waits
        longest = next(iter(waits._due))
        waits.remove(longest)
        self.hand_overs._waited_long_enough(longest)

    def close(self) -> None:
        self.acceptor.close()
        self.intake.close()
        self.hand_overs.close()
        self.refusals.close()
        for worker in self._workers:
            worker.die()
        for closable in self._to_close:
            closable.close()


@asynccontextmanager
async def running_rig(directory: Path, **options: Any) -> AsyncIterator[Rig]:
    """A rig that is closed after the test. No callback of the loop may have failed meanwhile."""
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    rig = Rig(directory, **options)
    try:
        yield rig
    finally:
        rig.close()
    assert failed == []


@contextmanager
def no_descriptor_left(*, but: int = 0) -> Iterator[None]:
    """No new descriptor can be had meanwhile, but for `but`: all below the limit are in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + but, hard))
    fillers: list[int] = []
    try:
        while True:
            try:
                fillers.append(os.dup(0))
            except OSError:
                break
        for _ in range(but):
            os.close(fillers.pop())
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
