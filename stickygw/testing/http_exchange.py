"""One HTTP request over a socket, and its answer: what `AppClient.request` does."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from typing import cast

HOST = "testserver"


@dataclass(frozen=True, slots=True)
class TestAnswer:
    """What the application answered. `headers["Content-Type"]` is found in any case."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body, from UTF-8."""
        return self.body.decode()


async def exchange(
    sock: socket.socket, method: str, path: str, *, headers: Mapping[str, str], body: bytes
) -> TestAnswer:
    """Send one request over `sock`, which is closed then, and read the whole answer."""
    length = {"Content-Length": str(len(body))} if body else {}
    fields = {"Host": HOST, "Connection": "close", **length, **headers}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    loop = asyncio.get_running_loop()
    with sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, head.encode("latin-1") + b"\r\n" + body)
        data = bytearray()
        while piece := await loop.sock_recv(sock, 65536):
            data += piece
    response = HTTPResponse(cast(socket.socket, _Received(bytes(data))), method=method)
    response.begin()
    return TestAnswer(response.status, response.msg, response.read())


class _Received:
    """Bytes that `http.client` takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)
