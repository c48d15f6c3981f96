"""Whole HTTP/1.1 answers as bytes: refusals, the health answer, static files, the page that says 426."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

Fields = Iterable[tuple[str, str]]


def answer(status: int, body: bytes, *, fields: Fields = (), content_type: str = "text/plain; charset=utf-8",
           with_body: bool = True) -> bytes:  # fmt: skip
    """One complete answer that ends its connection (``Connection: close``, RFC 9112 §9.6).

    `with_body=False` answers HEAD: the length is told, the body is left out (RFC 9110 §9.3.2).
    """
    return answer_head(status, len(body), fields=fields, content_type=content_type) + (body if with_body else b"")


def answer_head(
    status: int, length: int, *, fields: Fields = (), content_type: str = "text/plain; charset=utf-8"
) -> bytes:
    """The head of an answer whose body of `length` bytes follows."""
    lines = [
        f"HTTP/1.1 {status} {_phrase(status)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    for name, value in fields:
        if "\r" in value or "\n" in value:
            raise ValueError(f"a line break in the value of {name}")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # one that nobody registered; the phrase means nothing to clients (RFC 9112 §4)
        return "Unknown"
