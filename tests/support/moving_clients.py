"""Lean WebSocket clients of `integration/apps/moving.py`, which check what comes: `Rider`.

A rider numbers its echoes and what it publishes, and expects each number once and in order: what is lost, doubled or
out of order is one of its `faults`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from websockets.frames import Close

from support.raw import upgrade

DEADLINE = 20.0
"""Seconds for one answer; many times what it takes."""

ECHO = struct.Struct("!cI")
ECHOED = struct.Struct("!cIIH")
PUBLISHED = struct.Struct("!cHI")

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_RSV1 = 0x40


def client_frame(payload: bytes, opcode: int = BINARY, *, is_final: bool = True, is_compressed: bool = False) -> bytes:
    """A client's frame, masked with zeros, which costs nothing."""
    first = opcode | (0x80 if is_final else 0) | (_RSV1 if is_compressed else 0)
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


class Rider(asyncio.Protocol):
    """One client in a room. `padding` random bytes are at the end of each of its messages."""

    def __init__(
        self,
        index: int,
        room: str,
        *,
        cookie: str | None = None,
        is_compressing: bool = False,
        padding: int = 0,
        path: str | None = None,
    ) -> None:
        self.index = index
        self.room = room
        self.path = path or f"/in/{room}"
        self.cookie = cookie
        self.padding = os.urandom(padding)
        self._is_compressing = is_compressing
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()
        self._is_open = False
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.transport: asyncio.Transport
        self.entered: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.slot = -1
        self.echoes_sent = 0
        self.echoes_got = 0
        self._asked_at: dict[int, float] = {}
        self.delays: list[float] = []
        self.published = 0
        self.last: dict[int, int] = {}
        self.flooded = 0
        self.generations: set[int] = set()
        self.faults: list[str] = []
        self.close_code: int | None = None
        self.answers_pings = True
        self.pings = 0

    def __repr__(self) -> str:
        return f"<{self.index} in {self.room}>"

    async def connect(self, port: int, *, receive_buffer: int | None = None) -> Rider:
        """Open the WebSocket; `receive_buffer` (bytes) makes it a reader that holds little."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(DEADLINE):
                await self._loop.sock_connect(sock, ("127.0.0.1", port))
                await self._loop.create_connection(lambda: self, sock=sock)
                await self.entered
        except BaseException:
            sock.close()
            raise
        return self

    # Doing

    def echo(self) -> None:
        """Ask for one echo more."""
        self.echoes_sent += 1
        self._asked_at[self.echoes_sent] = self._loop.time()
        self.send(ECHO.pack(b"E", self.echoes_sent) + self.padding)

    def publish(self) -> None:
        """Publish the next number."""
        self.published += 1
        self.send(PUBLISHED.pack(b"P", self.index, self.published) + self.padding)

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send one message."""
        if self._is_compressing:
            deflate = zlib.compressobj(wbits=-15)
            payload = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        self.transport.write(client_frame(payload, opcode, is_compressed=self._is_compressing))

    def tell(self, **request: Any) -> None:
        """Send a request that is not answered, or not now."""
        self.send(json.dumps(request).encode(), TEXT)

    async def ask(self, **question: Any) -> Any:
        """Send a request and wait for the next answer."""
        self.tell(**question)
        return await self.answer()

    async def answer(self) -> Any:
        """The next answer."""
        async with asyncio.timeout(DEADLINE):
            return await self._answers.get()

    async def who(self) -> dict[str, Any]:
        """What the application knows of it."""
        answer: dict[str, Any] = (await self.ask(do="who"))["who"]
        return answer

    async def wait_ended(self) -> int | None:
        """Wait for the end; the code of the close frame, None: there was none."""
        async with asyncio.timeout(DEADLINE):
            await self.ended
        return self.close_code

    def abort(self) -> None:
        """End without a closing handshake. Idempotent."""
        if hasattr(self, "transport"):
            self.transport.abort()

    # What comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        fields = [] if self.cookie is None else [("Cookie", self.cookie)]
        if self._is_compressing:
            offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
            fields.append(("Sec-WebSocket-Extensions", offer))
        transport.write(upgrade(self.path, fields=fields))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.entered.done():
            self.entered.set_exception(ConnectionError(f"closed in the handshake: {bytes(self._read)!r}"))
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self._is_open:
            head, separator, rest = bytes(self._read).partition(b"\r\n\r\n")
            if not separator:
                return
            self._opened(head)
            self._read = bytearray(rest)
        for opcode, payload in self._frames():
            self._take(opcode, payload)

    def _opened(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101 "):
            self.faults.append(f"refused: {head!r}")
            self.transport.abort()
            return
        self._is_open = True
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "set-cookie":
                self.cookie = value.partition(";")[0]
        if self._is_compressing and b"permessage-deflate" not in head:
            self.faults.append("no compression")
        if not self.path.startswith("/in/"):
            self._enter()

    def _enter(self) -> None:
        if not self.entered.done():  # nobody waits for it any more
            self.entered.set_result(None)

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        read = bytes(self._read)
        start, end = 0, len(read)
        while end - start >= 2:
            first, size, head = read[start], read[start + 1], 2
            if size == 126:
                head = 4
                size = int.from_bytes(read[start + 2 : start + 4], "big")
            elif size == 127:
                head = 10
                size = int.from_bytes(read[start + 2 : start + 10], "big")
            if end - start < head + size:
                break
            payload = read[start + head : start + head + size]
            if first & _RSV1:
                payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff")
            start += head + size
            yield first & 0x0F, payload
        self._read = bytearray(read[start:])

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self.close_code = Close.parse(payload).code if payload else 1005
            self.transport.write(client_frame(payload, CLOSE))
        elif opcode == PING:
            self.pings += 1
            if self.answers_pings:
                self.transport.write(client_frame(payload, PONG))
        elif opcode == TEXT:
            answer = json.loads(payload)
            if "slot" in answer:
                self.slot = answer["slot"]
                self._enter()
            else:
                self._answers.put_nowait(answer)
        elif payload[:1] == b"E":
            self._echoed(payload)
        elif payload[:1] == b"F":
            self.flooded += 1
            if int.from_bytes(payload[1:5], "big") != self.flooded:
                self.faults.append(f"flood {int.from_bytes(payload[1:5], 'big')} as number {self.flooded}")
        elif opcode == BINARY:
            self._heard(payload)
        else:
            self.faults.append(f"a frame of opcode {opcode}")

    def _echoed(self, payload: bytes) -> None:
        _, number, count, generation = ECHOED.unpack_from(payload)
        self.echoes_got += 1
        if number != self.echoes_got or count != number:
            self.faults.append(f"echo {number}, counted {count}, as number {self.echoes_got}")
        elif payload[ECHOED.size :] != self.padding:
            self.faults.append(f"echo {number} is garbled")
        self.generations.add(generation)
        asked_at = self._asked_at.pop(number, None)
        if asked_at is not None:
            self.delays.append(self._loop.time() - asked_at)

    def _heard(self, payload: bytes) -> None:
        _, sender, number = PUBLISHED.unpack_from(payload)
        last = self.last.get(sender)
        if last is not None and number != last + 1:
            kind = "lost up to" if number > last + 1 else "doubled or late"
            self.faults.append(f"{kind} {number} of {sender} after {last}")
        self.last[sender] = number


async def abort_all(riders: list[Rider]) -> None:
    """End them, and return when their sockets are closed: a gateway that is stopped then waits for nobody."""
    for rider in riders:
        rider.abort()
    async with asyncio.timeout(DEADLINE):
        for rider in riders:
            if hasattr(rider, "transport"):
                await rider.ended


def silence_of(riders: list[Rider]) -> float:
    """The longest time that one of them has waited for an echo, in seconds; those that still wait count, too."""
    now = asyncio.get_running_loop().time()
    waits = [now - min(rider._asked_at.values()) for rider in riders if rider._asked_at]
    return max([*waits, *(delay for rider in riders for delay in rider.delays)], default=0.0)
