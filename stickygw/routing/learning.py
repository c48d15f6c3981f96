"""Ids that an application mints and its clients bring back: where an answer has one, and which affinity key it makes.

Only the worker that minted such an id knows what it stands for, and no hash could tell who that is. So the setting
``learn`` says where to look: in a field of the answer, in a cookie that it sets, or in the first bytes of its body.
"""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from stickygw.routing.keys import Key, parse_key
from stickygw.routing.request_head import NEED_MORE, Head, NeedMore

MAX_BODY_BYTES = 1024
"""So far into a body an id is looked for; Engine.IO's first answer has it in the first 64 bytes."""

Fields = Sequence[tuple[bytes, bytes]]
"""Of an answer's head: names in lower case, and values."""

_OPEN_PACKET = re.compile(
    # JSONP (the "j" in the query), and Engine.IO 3's lengths, as text or as its binary payload has them.
    rb'(?:___eio\[\d{1,8}\]\(")?(?:\d{1,8}:|\x00[\x00-\x09]{1,8}\xff)?'
    rb'0\{[^{}]*?\\?"sid\\?"\s*:\s*\\?"([^"\\{}]{1,512})\\?"'
)
_MAY_BE_PAYLOAD = b"_\x000123456789"
_UNKNOWN_SESSION = re.compile(rb"Invalid session |Session ID unknown")
_LEFT_BY_ENCODE_URI_COMPONENT = "-_.!~*'()"


class Learnable(ABC):
    """One kind of id that is learnt. `text` is what the operator wrote; `key` finds the id in requests."""

    def __init__(self, text: str, key: Key) -> None:
        self.text = text
        self.key = key

    @abstractmethod
    def in_head(self, fields: Fields) -> bytes | None:
        """The id that an answer's head gives out, or None."""

    def is_in_body(self, request: Head, status: int) -> bool:
        """Whether the answer to `request` may give one out in its body."""
        return False

    def in_body(self, start: bytes, *, is_whole: bool) -> bytes | NeedMore | None:
        """The id that a body gives out that begins with `start`, None for none, or NEED_MORE of it."""
        return None


class HeaderId(Learnable):
    """``header:NAME``: a field of the answer, and the same field in the requests."""

    def __init__(self, text: str) -> None:
        super().__init__(text, parse_key(text))
        self._name = text.partition(":")[2].lower().encode("ascii")

    def in_head(self, fields: Fields) -> bytes | None:
        return next((value.strip(b" \t") for name, value in fields if name == self._name), None)


class CookieId(Learnable):
    """``cookie:NAME``: a cookie that the answer sets, and clients send back as it is (RFC 6265 §5.4)."""

    def __init__(self, text: str) -> None:
        super().__init__(text, parse_key(text))
        self._name = text.partition(":")[2].encode("ascii")

    def in_head(self, fields: Fields) -> bytes | None:
        found = None
        for name, line in fields:
            if name == b"set-cookie":
                pair, *attributes = line.split(b";")
                cookie_name, equals, value = pair.strip(b" \t").partition(b"=")
                if cookie_name.rstrip(b" \t") == self._name and equals:
                    # The last of several is the one that clients keep; one that is deleted is no id.
                    found = None if any(map(_deletes, attributes)) else value.strip(b" \t")
        return found


class EngineId(Learnable):
    """``engineio``: the ``sid`` in Engine.IO's open packet, and in the query of all requests after it.

    It is in the body of the first answer to a polling client. A client that begins with a WebSocket gets it in a
    message and never sends it: its one connection stays where it is.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text, parse_key("query:sid"))

    def in_head(self, fields: Fields) -> bytes | None:
        return None

    def is_in_body(self, request: Head, status: int) -> bool:
        return status == 200 and request.method == "GET" and is_engineio(request) and self.key.of(request, "") is None

    def in_body(self, start: bytes, *, is_whole: bool) -> bytes | NeedMore | None:
        if not start:
            return None if is_whole else NEED_MORE
        if start[0] not in _MAY_BE_PAYLOAD:
            return None
        found = _OPEN_PACKET.match(start, 0, MAX_BODY_BYTES)
        if found is not None:
            # Clients send it as JavaScript's encodeURIComponent writes it.
            return quote(found[1], safe=_LEFT_BY_ENCODE_URI_COMPONENT).encode("ascii")
        return None if is_whole or b"}" in start or len(start) >= MAX_BODY_BYTES else NEED_MORE


def parse_learn(text: str) -> Learnable:
    """What the setting `text` has learnt. Raises `ValueError` with one sentence on what is allowed."""
    kind, colon, _ = text.partition(":")
    if text == "engineio":
        return EngineId(text)
    if colon and kind in ("header", "cookie"):
        try:
            return HeaderId(text) if kind == "header" else CookieId(text)
        except ValueError:
            pass  # not a name: said below, in the words of this setting
    raise ValueError(f"{text!r} cannot be learnt: give engineio, header:NAME or cookie:NAME")


def is_engineio(request: Head) -> bool:
    """Whether `request` is one of Engine.IO's protocol: its clients send EIO=3 or 4 with each."""
    return request.query.startswith("EIO=") or "&EIO=" in request.query


def is_unknown_session(status: int, start: bytes) -> bool:
    """Whether an Engine.IO server says that it does not know the ``sid``: python-engineio's words, and Node's."""
    return status == 400 and _UNKNOWN_SESSION.search(start, 0, MAX_BODY_BYTES) is not None


def decoded(start: bytes, content_coding: bytes) -> bytes:
    """The first bytes of a body, at most `MAX_BODY_BYTES`, without its content coding; b"" when it can't be undone."""
    if content_coding.lower() not in (b"gzip", b"deflate"):
        return start
    try:
        # 32: gzip or zlib, whichever it is. A body that decompresses to gigabytes is cut here.
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(start, MAX_BODY_BYTES)
    except zlib.error:
        return b""


def differs_by_request(keys: Iterable[Key]) -> bool:
    """Whether two requests of one connection may belong to different slots by `keys`."""
    return any(not key.is_of_client for key in keys)


def _deletes(attribute: bytes) -> bool:
    name, _, value = attribute.strip(b" \t").partition(b"=")
    return name.lower() == b"max-age" and (value == b"0" or value.startswith(b"-"))
