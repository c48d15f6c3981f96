"""A WebSocket that can be moved: frozen, packed, and revived on a copy of its socket, in one process."""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from collections.abc import Callable

import msgpack
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from stickygw.connections.flow import Flusher
from stickygw.connections.frozen import FrozenWebSocket
from stickygw.connections.revival import revive
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.observability.counters import Counters

DEADLINE = 10.0


class MovedSocket:
    """`websocket` is the one that serves the client now, `past` are those that were let go.

    `received` and `ended` are what the receiver was told, wherever it was; `answer` is called with each message.
    """

    def __init__(
        self,
        *,
        max_message: int = 1 << 20,
        max_outbox: int = 1 << 20,
        send_buffer: int | None = None,
        window_bits: int = 0,
        is_tcp: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        server, self.client = tcp_pair() if is_tcp else socket.socketpair()
        if send_buffer is not None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.client.setblocking(False)
        self.received: list[str | bytes] = []
        self.ended: asyncio.Future[tuple[int, str]] = self.loop.create_future()
        self.answer: Callable[[str | bytes], None] = lambda message: None
        self.counters = Counters()
        self.flusher = Flusher(self.loop)
        self.max_message = max_message
        self.max_outbox = max_outbox
        self.past: list[WebSocket] = []
        self.transport = SocketTransport(server, self.loop, self.flusher)
        protocol = ServerProtocol(state=OPEN, max_size=max_message)
        self.peer = Protocol(CLIENT, state=OPEN, max_size=None)
        if window_bits:
            protocol.extensions = [deflate(remote=window_bits, local=12)]
            self.peer.extensions = [deflate(remote=12, local=max(9, window_bits))]
        self.websocket = WebSocket(
            self.transport,
            protocol,
            self,
            loop=self.loop,
            max_message=max_message,
            max_outbox=max_outbox,
            counters=self.counters,
        )
        self.websocket.start()

    def message_received(self, message: str | bytes) -> None:
        self.received.append(message)
        self.answer(message)

    def connection_ended(self, code: int, reason: str) -> None:
        self.ended.set_result((code, reason))

    def revive(self, packed: bytes) -> WebSocket:
        """Another WebSocket on a copy of the socket; it is not started."""
        sock = socket.socket(fileno=os.dup(self.websocket.fileno()))
        self.transport = SocketTransport(sock, self.loop, self.flusher)
        return revive(
            FrozenWebSocket.of_plain(msgpack.unpackb(packed)),
            self.transport,
            self,
            loop=self.loop,
            max_message=self.max_message,
            max_outbox=self.max_outbox,
            counters=self.counters,
        )

    def take_over(self) -> WebSocket:
        """Move it as far as it goes without a start."""
        old = self.websocket
        self.websocket = self.revive(msgpack.packb(old.freeze().to_plain()))
        old.let_go()
        self.past.append(old)
        return self.websocket

    def move(self) -> None:
        """Move it."""
        self.take_over().start()

    async def turn(self, count: int = 3) -> None:
        """Let the loop poll its sockets a few times: what can happen at once has happened then."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Turn the loop until `is_so`, within the deadline."""
        async with asyncio.timeout(DEADLINE):
            while not is_so():
                await self.turn(1)

    def read_nowait(self, size: int = 1 << 20) -> bytes | None:
        """What the client has got: b"" is the end, None nothing."""
        try:
            return self.client.recv(size)
        except BlockingIOError:
            return None

    async def read_frames(self, count: int) -> list[Frame]:
        """The client's next frames, `count` or more."""
        frames: list[Frame] = []
        async with asyncio.timeout(DEADLINE):
            while len(frames) < count:
                data = await self.loop.sock_recv(self.client, 65536)
                assert data, f"the end, after {len(frames)} frames"
                frames += self.frames_of(data)
        return frames

    def frames_of(self, data: bytes) -> list[Frame]:
        """The frames that end in `data`, which the client has read."""
        self.peer.receive_data(data)
        assert self.peer.parser_exc is None
        return [event for event in self.peer.events_received() if isinstance(event, Frame)]

    async def read_to_the_end(self) -> bytes:
        data = bytearray()
        async with asyncio.timeout(DEADLINE):
            while chunk := await self.loop.sock_recv(self.client, 65536):
                data += chunk
        return bytes(data)

    async def send(self, data: bytes) -> None:
        """Send bytes as the client."""
        await self.loop.sock_sendall(self.client, data)

    def close(self) -> None:
        self.client.close()
        self.websocket.abort()
        self.websocket.thaw()
        self.transport.abort()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """The server's end and the client's of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


def deflate(*, remote: int, local: int) -> PerMessageDeflate:
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=remote,
        local_max_window_bits=local,
    )


def client_frame(first: int, payload: bytes) -> bytes:
    """A masked frame whose first byte is `first`: FIN, RSV and opcode may be what no client should send."""
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    mask = b"\x17\x2a\x05\x99"
    return head + mask + apply_mask(payload, mask)


def deflated(payload: bytes, window_bits: int = 15) -> bytes:
    """A client's compressed message, before it is cut into fragments."""
    compressor = zlib.compressobj(wbits=-max(9, window_bits))
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fragmented(
    opcode: int, payload: bytes, cuts: list[int], *, rsv1: bool = False, between: bytes = b"", is_whole: bool = True
) -> bytes:
    """A message in fragments that end at `cuts`, `between` them other frames; the last one without FIN if not whole."""
    edges = sorted({min(cut, len(payload)) for cut in cuts} | {len(payload)})
    frames, start = [], 0
    for number, edge in enumerate(edges):
        first = (0 if number else opcode | (0x40 if rsv1 else 0)) | (0x80 if is_whole and edge == edges[-1] else 0)
        frames.append(client_frame(first, payload[start:edge]))
        start = edge
    return between.join(frames)
