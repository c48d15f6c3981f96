"""A client that writes bytes as it likes: broken requests, half-open WebSockets, readers that never read."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from websockets.frames import Frame, Opcode

from support.waiting import wait_until

DEADLINE = 20.0
"""Seconds for one answer; many times what it takes."""

Fields = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to the end of its connection."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """The value of the only field called `name`; None if there is none."""
        values = [value for field, value in self.fields if field.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def cookie(self) -> str | None:
        """The cookie that it sets, as the client sends it back."""
        value = self.get("Set-Cookie")
        return None if value is None else value.partition(";")[0]


def parsed(data: bytes) -> Answer:
    """The answer that `data` is."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no whole answer: {data[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    return Answer(int(first.split(" ")[1]), [(name, value) for name, _, value in pairs], body)


def head(method: str, target: str, *, host: str = "127.0.0.1", fields: Fields = (), version: str = "1.1") -> bytes:
    """A request head."""
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


UPGRADE: list[tuple[str, str]] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]


def upgrade(target: str = "/", *, host: str = "127.0.0.1", fields: Fields = ()) -> bytes:
    """A WebSocket handshake."""
    return head("GET", target, host=host, fields=[*UPGRADE, *fields])


def frame(message: Any, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A client's frame: bytes as they are, all else as JSON."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return Frame(opcode, data).serialize(mask=True)


class Raw:
    """One TCP connection to 127.0.0.1, from `source`. `receive_buffer` (bytes) makes it a reader that holds little."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", receive_buffer: int | None = None) -> None:
        self._address = ("127.0.0.1", port)
        self._sock = socket.socket()
        if receive_buffer is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.bind((source, 0))
        self._sock.setblocking(False)
        self._read = b""

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_connect(self._sock, self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    @property
    def port(self) -> int:
        """Our end's port."""
        return int(self._sock.getsockname()[1])

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def send_nowait(self, data: bytes) -> int:
        """Send what the kernel takes at once; how many bytes."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def wait_arrived(self) -> None:
        """Return when the other side's kernel has all that was sent. A reset raises an `OSError`."""

        def is_all_there() -> bool:
            if error := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            return not any(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))

        await wait_until(is_all_there, seconds=DEADLINE)

    def finish(self) -> None:
        """Say that nothing more will be sent (FIN); to nobody, if the other side has reset the connection."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def reset(self) -> None:
        """End as a killed machine's kernel would: RST, no FIN."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    async def receive(self, limit: int = 65536) -> bytes:
        """What comes next; b"" at the end. A reset raises `ConnectionResetError`."""
        async with asyncio.timeout(DEADLINE):
            return await asyncio.get_running_loop().sock_recv(self._sock, limit)

    async def receive_all(self) -> bytes:
        """Everything until the other side closes."""
        data, self._read = self._read, b""
        while piece := await self.receive():
            data += piece
        return data

    async def answer(self) -> Answer:
        """The answer, whole, up to the end of the connection."""
        return parsed(await self.receive_all())

    async def opened(self) -> Answer:
        """The head of a 101; what follows it are frames."""
        answer = await self.answer_head()
        assert answer.status == 101, answer
        return answer

    async def answer_head(self) -> Answer:
        """The head of an answer; what follows it is still to be read."""
        while b"\r\n\r\n" not in self._read:
            piece = await self.receive()
            assert piece, f"closed in the handshake: {self._read!r}"
            self._read += piece
        text, _, self._read = self._read.partition(b"\r\n\r\n")
        return parsed(text + b"\r\n\r\n")

    async def next_frame(self) -> Frame | None:
        """The next frame as it is on the wire, and None when the connection has ended. Pings stay unanswered."""
        start = await self._exactly(2)
        if start is None:
            return None
        size = start[1] & 0x7F
        if size > 125:
            longer = await self._exactly(2 if size == 126 else 8)
            assert longer is not None
            size = int.from_bytes(longer, "big")
        data = await self._exactly(size)
        assert data is not None
        return Frame(Opcode(start[0] & 0x0F), data, fin=bool(start[0] & 0x80), rsv1=bool(start[0] & 0x40))

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._read) < size:
            piece = await self.receive()
            if not piece:
                assert not self._read, "closed within a frame"
                return None
            self._read += piece
        data, self._read = self._read[:size], self._read[size:]
        return data


async def exchange(port: int, data: bytes, *, source: str = "127.0.0.1") -> Answer:
    """Send `data` and read the whole answer."""
    async with Raw(port, source=source) as raw:
        await raw.send(data)
        return await raw.answer()


async def get(port: int, target: str, *fields: tuple[str, str], method: str = "GET") -> Answer:
    """One plain request and its whole answer."""
    return await exchange(port, head(method, target, host=f"127.0.0.1:{port}", fields=fields))
