"""An open WebSocket on a socket pair, whose client reads when the test says so, and only then."""

from __future__ import annotations

import asyncio
import socket

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.server import ServerProtocol

from stickygw.connections.flow import Flusher
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.observability.counters import Counters

DEADLINE = 10.0


class SocketPair:
    """`websocket` is under test; it is its own member of rooms, for it has their `deliver`."""

    def __init__(self, *, max_outbox: int, send_buffer: int = 4096, is_compressed: bool = False) -> None:
        loop = asyncio.get_running_loop()
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.client.setblocking(False)
        self.counters = Counters()
        self.received: list[str | bytes] = []
        self.ended: asyncio.Future[tuple[int, str]] = loop.create_future()
        self.transport = SocketTransport(server, loop, Flusher(loop))
        protocol = ServerProtocol(state=OPEN)
        self._peer = Protocol(CLIENT, state=OPEN, max_size=None)
        if is_compressed:
            protocol.extensions = [_deflate()]
            self._peer.extensions = [_deflate()]
        self.websocket = WebSocket(
            self.transport,
            protocol,
            self,
            loop=loop,
            max_message=1 << 20,
            max_outbox=max_outbox,
            counters=self.counters,
        )
        self.websocket.start(b"")

    def message_received(self, message: str | bytes) -> None:
        self.received.append(message)

    def connection_ended(self, code: int, reason: str) -> None:
        self.ended.set_result((code, reason))

    async def read_frames(self, opcode: Opcode, count: int = 1) -> list[Frame]:
        """Read until `count` frames of `opcode` have come; all that came. They are whole, or the library objects."""
        frames: list[Frame] = []
        async with asyncio.timeout(DEADLINE):
            while sum(frame.opcode is opcode for frame in frames) < count:
                data = await asyncio.get_running_loop().sock_recv(self.client, 65536)
                assert data, f"the end, after {len(frames)} frames"
                self._peer.receive_data(data)
                assert self._peer.parser_exc is None
                frames += [event for event in self._peer.events_received() if isinstance(event, Frame)]
        return frames

    async def send(self, opcode: Opcode, data: bytes = b"") -> None:
        """Send a frame as the client."""
        await asyncio.get_running_loop().sock_sendall(self.client, Frame(opcode, data).serialize(mask=True))

    def close(self) -> None:
        self.client.close()
        self.websocket.abort()


def _deflate() -> Extension:
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=12,
        local_max_window_bits=12,
    )
