"""The load: plain blocking sockets and canned bytes, so that the client costs as little as it can."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.frames import Frame, Opcode

WAVE = 32
"""Connections that are opened at the same time."""

# What Chromium 140 sends with a handshake, in its order: 13 fields with Host and the cookie.
BROWSER_HEAD = (
    "GET /ws/lobby HTTP/1.1\r\n"
    "Host: {host}\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: http://{host}\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n"
    "{cookie}"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    "\r\n"
)


class WebSocketClient:
    """One WebSocket on a blocking socket; its handshake is sent at once, and read by `wait_open`."""

    def __init__(self, port: int, *, cookie: str | None = None) -> None:
        host = f"127.0.0.1:{port}"
        head = BROWSER_HEAD.format(host=host, cookie=f"Cookie: {cookie}\r\n" if cookie else "")
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(head.encode())
        self.cookie: str | None = None

    def wait_open(self) -> None:
        """Read the answer to the handshake."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.sock.recv(4096)
            if not data:
                raise ConnectionError(f"refused: {answer!r}")
            answer += data
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"refused: {answer!r}")
        fields = dict(line.split(": ", 1) for line in answer.decode("latin-1").split("\r\n")[1:] if ": " in line)
        set_cookie = fields.get("Set-Cookie")
        if set_cookie is not None:
            self.cookie = set_cookie.partition(";")[0]

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self.sock.sendall(frame)

    def wait_answer(self, answer_bytes: int) -> None:
        """Read its answer."""
        while answer_bytes > 0:
            data = self.sock.recv(answer_bytes)
            if not data:
                raise ConnectionError("closed in the middle of an answer")
            answer_bytes -= len(data)

    def close(self) -> None:
        """Leave without a word."""
        self.sock.close()


def text_frame(length: int) -> bytes:
    """A masked text frame with a payload of `length` bytes."""
    return Frame(Opcode.TEXT, b"x" * length).serialize(mask=True)


@contextmanager
def opened(port: int, count: int, *, cookie: str | None = None) -> Iterator[list[WebSocketClient]]:
    """`count` open WebSockets, opened in waves of `WAVE`, as they come when many clients do."""
    clients: list[WebSocketClient] = []
    try:
        while len(clients) < count:
            wave = [WebSocketClient(port, cookie=cookie) for _ in range(min(WAVE, count - len(clients)))]
            clients += wave
            for client in wave:
                client.wait_open()
        yield clients
    finally:
        for client in clients:
            client.close()
