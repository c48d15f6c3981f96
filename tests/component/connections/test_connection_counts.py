"""What a connection counts: messages by its WebSocket, bytes by its transport, and both can be read after its end."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from support.waiting import wait_until
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from stickygw.connections.flow import Flusher
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import PreparedMessage


class Receiver:
    def message_received(self, message: str | bytes) -> None:
        """Only the counts are looked at."""

    def connection_ended(self, code: int, reason: str) -> None:
        """As above."""


class Pair:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        server, self.client = socket.socketpair()
        self.transport = SocketTransport(server, loop, Flusher(loop))
        self.websocket = WebSocket(
            self.transport,
            ServerProtocol(state=OPEN),
            Receiver(),
            loop=loop,
            max_message=1 << 20,
            max_outbox=1 << 24,
            counters=Counters(),
        )
        self.websocket.start(b"")

    @property
    def messages(self) -> tuple[int, int]:
        return self.websocket.received_messages, self.websocket.sent_messages

    @property
    def bytes(self) -> tuple[int, int]:
        return self.transport.received_bytes, self.transport.sent_bytes


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    yield pair
    pair.client.close()
    pair.websocket.abort()


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


async def test_messages_are_counted_whole_and_control_frames_are_none(pair: Pair) -> None:
    sent = b"".join(
        [
            frame(Opcode.TEXT, b"short"),
            frame(Opcode.BINARY, b"x" * 1000),
            frame(Opcode.TEXT, b"in two ", fin=False),
            frame(Opcode.CONT, b"fragments"),
            frame(Opcode.PING, b"none"),
        ]
    )
    pair.client.sendall(sent)
    await wait_until(lambda: pair.messages == (3, 0))
    pair.websocket.send(PreparedMessage.of("answer"))
    assert pair.messages == (3, 1)
    pong = await asyncio.get_running_loop().run_in_executor(None, pair.client.recv, 65536)
    while len(pong) < 14:  # a pong of 6 bytes and an answer of 8
        pong += await asyncio.get_running_loop().run_in_executor(None, pair.client.recv, 65536)
    assert pair.bytes == (len(sent), 14)


async def test_the_counts_stay_when_the_connection_is_over_and_nothing_is_added_then(pair: Pair) -> None:
    pair.client.sendall(frame(Opcode.TEXT, b"last"))
    await wait_until(lambda: pair.messages == (1, 0))
    pair.websocket.send(PreparedMessage.of("bye"))
    await pair.websocket.drained()
    pair.websocket.abort()
    pair.websocket.send(PreparedMessage.of("too late"))
    assert pair.messages == (1, 1)
    assert pair.bytes == (10, 5)


async def test_what_the_kernel_does_not_take_is_unsent_and_not_yet_counted(pair: Pair) -> None:
    pair.transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(3):
        pair.websocket.send(PreparedMessage.of(b"x" * 1_000_000))
    assert pair.websocket.unsent_writes == 3
    await wait_until(lambda: pair.websocket.blocked_since is not None)
    assert pair.websocket.unsent_writes > 0
    assert pair.websocket.sent_messages == 3
    assert pair.transport.sent_bytes + pair.transport.outbox_bytes == 3 * 1_000_010
