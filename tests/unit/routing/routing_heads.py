"""Builders of request heads for the routing tests."""

from __future__ import annotations

from collections.abc import Iterable

from stickygw.routing.request_head import Head, examine

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

BROWSER_FIELDS = (
    ("Host", "localhost:8000"),
    ("Connection", "Upgrade"),
    ("Pragma", "no-cache"),
    ("Cache-Control", "no-cache"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    ),
    ("Upgrade", "websocket"),
    ("Origin", "http://localhost:8000"),
    ("Sec-WebSocket-Version", "13"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-US,en;q=0.9,de;q=0.8"),
    ("Cookie", "theme=dark"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
)


def head_bytes(request_line: str, fields: Iterable[tuple[str, str]] = ()) -> bytes:
    """A head as it is sent; characters up to U+00FF stand for bytes."""
    lines = [request_line, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def handshake(*, target: str = "/ws", without: str = "", extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """A browser's WebSocket handshake, without the field `without` and with `extra` ones."""
    fields = [field for field in BROWSER_FIELDS if field[0] != without]
    return head_bytes(f"GET {target} HTTP/1.1", [*fields, *extra])


def head(*, target: str = "/ws", extra: Iterable[tuple[str, str]] = ()) -> Head:
    """The head of a browser's WebSocket handshake, as the gate gives it."""
    verdict = examine(handshake(target=target, extra=extra))
    assert isinstance(verdict, Head)
    return verdict
