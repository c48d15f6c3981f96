"""What the body of one HTTP/1.1 request is, and where it ends (RFC 9112 §6, §7.1).

Every cutting of the bytes gives the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

MALFORMED: Final = -1
"""What `feed` gives for bytes that are no body: where the request ends is not known, so the connection has to."""

MAX_CHUNK_LINE_BYTES = 256
"""A chunk's size with its extensions, which nobody uses: long ones make a server read much for little."""

MAX_TRAILER_BYTES = 8 * 1024
MAX_TRAILERS = 100
"""Bounds of all trailer fields of a request together."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # RFC 9110 §5.6.2
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_EXTENSION = rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
# 15 digits: a size that no parser's 64-bit number overflows at.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:%s)*\r\n" % _EXTENSION)
_TRAILER_LINE = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*+)\r\n")


_HEAD_ONLY = frozenset(
    (
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-real-ip",
    )
)
"""What says whose request it is or how it is to be read. Behind the body, proxies that check it would not (RFC 9110,
6.5.1)."""


class BodyFraming(Protocol):
    """One request's body, as it comes. Not fed any more once `is_complete`, or `feed` gave `MALFORMED`."""

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come."""

    @property
    def trailers(self) -> Sequence[tuple[bytes, bytes]]:
        """The trailer fields that have come, names in lower case; but for those that only a head may have."""

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """What of the body is in `data`, and how many bytes of `data`, from its beginning, belong to this request;
        `MALFORMED`: nobody knows."""


def framing_of(fields: Iterable[tuple[bytes, bytes]]) -> BodyFraming:
    """The framing that the fields of a head announce; their names are lower case.

    Raises `ValueError` for what has two readings. Our gate lets no such head pass.
    """
    lengths, codings = [], []
    for name, value in fields:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if not codings and not lengths:
        return SizedBody(0)
    if not lengths and len(codings) == 1 and codings[0].lower() == b"chunked":
        return ChunkedBody()
    if not codings and len(lengths) == 1 and lengths[0].isdigit():
        return SizedBody(int(lengths[0]))
    raise ValueError(f"a body of two readings: Content-Length {lengths}, Transfer-Encoding {codings}")


class SizedBody:
    """A body of as many bytes as Content-Length says, or none."""

    __slots__ = ("_left",)

    trailers: Sequence[tuple[bytes, bytes]] = ()

    def __init__(self, size: int) -> None:
        self._left = size

    @property
    def is_complete(self) -> bool:
        return not self._left

    def feed(self, data: bytes) -> tuple[bytes, int]:
        taken = min(self._left, len(data))
        self._left -= taken
        return data[:taken], taken


class ChunkedBody:
    """A chunked body (RFC 9112 §7.1), trailer fields included. A bare CR or LF is refused as soon as it comes."""

    __slots__ = (
        "_is_behind_data",
        "_is_in_trailers",
        "_left",
        "_line",
        "_trailer_bytes",
        "_trailer_count",
        "is_complete",
        "trailers",
    )

    def __init__(self) -> None:
        self._left = 0  # bytes of the chunk that is coming
        self._line = b""  # the line that is coming
        self._is_behind_data = False  # the next line is the CRLF that ends a chunk
        self._is_in_trailers = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._trailer_bytes = 0
        self._trailer_count = 0
        self.is_complete = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        content: list[bytes] = []
        position, end = 0, len(data)
        while position < end and not self.is_complete:
            if self._left:
                taken = min(self._left, end - position)
                content.append(data[position : position + taken])
                self._left -= taken
                position += taken
                self._is_behind_data = not self._left
                continue
            stop = data.find(b"\n", position) + 1 or end
            # A line that is too long is seen to be so without reading on.
            self._line += data[position : min(stop, position + self._max_line_bytes + 1)]
            position = stop
            if self._line.endswith(b"\n"):
                line, self._line = self._line, b""
                if not self._take_line(line):
                    return b"", MALFORMED
            elif len(self._line) >= self._max_line_bytes or b"\r" in self._line[:-1]:
                return b"", MALFORMED
        return b"".join(content), position

    @property
    def _max_line_bytes(self) -> int:
        if self._is_behind_data:
            return 2
        return MAX_TRAILER_BYTES - self._trailer_bytes if self._is_in_trailers else MAX_CHUNK_LINE_BYTES

    def _take_line(self, line: bytes) -> bool:
        """Whether `line`, which ends in LF, may stand here."""
        if len(line) > self._max_line_bytes:
            return False
        if self._is_behind_data:
            self._is_behind_data = False
            return line == b"\r\n"
        return self._take_trailer(line) if self._is_in_trailers else self._take_size(line)

    def _take_size(self, line: bytes) -> bool:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            return False
        self._left = int(match[1], 16)
        self._is_in_trailers = not self._left
        return True

    def _take_trailer(self, line: bytes) -> bool:
        if line == b"\r\n":
            self.is_complete = True
            return True
        match = _TRAILER_LINE.fullmatch(line)
        if match is None or self._trailer_count == MAX_TRAILERS:
            return False
        self._trailer_bytes += len(line)
        self._trailer_count += 1
        name = match[1].lower()
        if name not in _HEAD_ONLY and not name.startswith(b"x-forwarded-"):
            self.trailers.append((name, match[2].strip(b" \t")))
        return True
