"""The one strict gate: what a client's first bytes are: a request head, the beginning of one, or a refusal.

What is refused here reaches no worker, and a worker that looks at a further request uses this same code: a
request that two parsers could read differently is how requests are smuggled. The body, routes and answers
are others' business.

*Every segmentation gives the same verdict*, by construction: one regular expression finds the longest
prefix of the bytes that can begin a valid head, and the verdict is that of the first byte after it. What
needs the whole head (which fields it has, and what they say) is judged when its blank line is there, in a
fixed order, and bytes after it are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Final

MAX_HEAD_BYTES = 16 * 1024
"""Cookies of logged-in users exceed 4 KiB."""
MAX_TARGET_BYTES = 8 * 1024
"""RFC 9112 §3 asks for at least 8,000 bytes of request line."""
MAX_METHOD_BYTES = 32
MAX_FIELDS = 100


class RefusalReason(StrEnum):
    """Why a client's opening was refused: the log word and the metric label."""

    TLS = "tls"
    NOT_HTTP = "not_http"
    BAD_REQUEST_LINE = "bad_request_line"
    BAD_VERSION = "bad_version"
    BAD_TARGET = "bad_target"
    TARGET_TOO_LONG = "target_too_long"
    BAD_FIELD = "bad_field"
    TOO_MANY_FIELDS = "too_many_fields"
    HEAD_TOO_LARGE = "head_too_large"
    BAD_HOST = "bad_host"
    BAD_CONTENT_LENGTH = "bad_content_length"
    BAD_TRANSFER_ENCODING = "bad_transfer_encoding"
    BAD_UPGRADE = "bad_upgrade"
    BAD_WEBSOCKET_VERSION = "bad_websocket_version"
    BAD_WEBSOCKET_KEY = "bad_websocket_key"
    SEVERAL_ORIGINS = "several_origins"
    BAD_PROXY_HEADER = "bad_proxy_header"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to an opening that is not accepted.

    `status` is an HTTP status from 400 to 499, or 0: close and say nothing, the other side does not speak
    HTTP. `message` is one sentence for the client, `fields` go into the answer's head.
    """

    status: int
    reason: RefusalReason
    message: str
    fields: tuple[tuple[str, str], ...] = ()


class NeedMore(Enum):
    """The bytes so far begin something valid that is not complete."""

    NEED_MORE = auto()


NEED_MORE: Final = NeedMore.NEED_MORE


@dataclass(slots=True)
class Head:
    """A valid request head. Nobody writes to it, but a frozen dataclass takes three times as long to make.

    `target` is as sent, `path` its part before the first ``?`` and `query` what follows, neither decoded;
    `version` is "1.0" or "1.1". `fields` has lower-case names, and values without the white space around
    them, which may hold bytes over 0x7f. `size` is the head's length in bytes, blank line included.
    """

    method: str
    target: str
    path: str
    query: str
    version: str
    fields: list[tuple[bytes, bytes]]
    size: int
    is_websocket: bool
    first: dict[bytes, bytes] = field(repr=False, compare=False)
    """The first value of each field."""

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field called `name` (lower case), or None."""
        return self.first.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """The values of all fields called `name` (lower case), in order."""
        return [value for field_name, value in self.fields if field_name == name]

    @property
    def is_kept_alive(self) -> bool:
        """Whether the client may send another request behind this one (RFC 9112, 9.3; not in HTTP/1.0)."""
        if self.version == "1.0":
            return False
        return b"connection" not in self.first or b"close" not in _tokens(self.get_all(b"connection"))


def first_values(fields: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """See `Head.first`."""
    return dict(reversed(fields))


def examine(data: bytes) -> Head | Refusal | NeedMore:
    """Say what `data`, all bytes that came so far, is.

    For every prefix of `data` that is not NEED_MORE the verdict is the same.
    """
    match = _OPENING.match(data, 0, MAX_HEAD_BYTES)
    if match is None:
        return _not_a_token(data[0]) if data else NEED_MORE
    method, target, minor, _, blank_line = match.groups()
    if blank_line is None:
        return _incomplete(data, match)
    size = match.end()
    fields = [(name.lower(), value.strip(b" \t")) for name, value in _FIELD.findall(data, match.start(4), size - 2)]
    if len(fields) > MAX_FIELDS:
        return _TOO_MANY_FIELDS
    return _judged(method, target, b"1." + minor, fields, size)


def examine_further(data: bytes, last: Head, block: bytes) -> Head | Refusal | NeedMore:
    """`examine`, on a connection where `last` came before, whose field lines and blank line were `block`.

    Clients mostly send the same fields with each request: then only the request line is new, and all else about them
    has been found out.
    """
    start = data.find(b"\r\n") + 2
    if not block or last.is_websocket or not data.startswith(block, start):
        return examine(data)
    line = _REQUEST_LINE.fullmatch(data, 0, start)
    if line is None:
        return examine(data)
    size = start + len(block)
    method, target, version = line.groups()
    if size > MAX_HEAD_BYTES or version.decode("ascii") != last.version or method == b"CONNECT":
        return examine(data)
    text = target.decode("ascii")
    path, _, query = text.partition("?")
    return Head(method.decode("ascii"), text, path, query, last.version, last.fields, size, False, last.first)


# --- the grammar ----------------------------------------------------------------------------------

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 §5.6.2
# Visible ASCII. A fragment (#) is never sent (RFC 9112 §3.2), and 8-bit bytes have two readings.
_TARGET = rb'[!"$-~]'
_VALUE = rb"[\t -~\x80-\xff]"  # RFC 9110 §5.5 with obs-text: no control bytes, so no bare CR or LF, no NUL


def _in_stages(*stages: bytes) -> bytes:
    """A pattern that matches as many of `stages` as there are, one after the other, and the first always."""
    first, *rest = stages
    return first + (b"(?:" + _in_stages(*rest) + b")?" if rest else b"")


# Every repeated character is possessive and every alternative starts with another byte, so nothing is tried
# twice but the last, unfinished field line: linear time. (A possessive *group* is left out: CPython before
# 3.11.5 matches some wrongly.)
_COMPLETE_FIELD = _TOKEN + rb"++:" + _VALUE + rb"*+\r\n"
_PARTIAL_FIELD = _in_stages(_TOKEN + rb"++", b":" + _VALUE + rb"*+", rb"\r")
_OPENING = re.compile(
    _in_stages(
        b"(" + _TOKEN + b"{1,%d}+)" % MAX_METHOD_BYTES,
        b" ",
        b"(" + _TARGET + b"{1,%d}+)" % MAX_TARGET_BYTES,
        *(b" ", b"H", b"T", b"T", b"P", b"/", b"1", rb"\.", b"([01])", rb"\r"),
        # One line more than is allowed is read, so that the excess is seen.
        rb"\n()(?:%s){0,%d}(?:(\r\n)|\r|%s)?" % (_COMPLETE_FIELD, MAX_FIELDS + 1, _PARTIAL_FIELD),
    )
)
_REQUEST_LINE = re.compile(
    b"(%b{1,%d}+) (/%b{0,%d}+) HTTP/(1\\.[01])\r\n" % (_TOKEN, MAX_METHOD_BYTES, _TARGET, MAX_TARGET_BYTES - 1)
)
_FIELD = re.compile(rb"([^:]++):([^\r]*+)\r\n")  # over lines that _OPENING has accepted

# What is in use of RFC 3986's host: names (Docker's have underscores), addresses; no sub-delims, no %XX.
_HOST = re.compile(rb"(?:[0-9A-Za-z._~\-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
# 16 bytes in base64 (RFC 6455 §4.2.1); the last digit carries two bits, and the four unused ones are zero.
_WEBSOCKET_KEY = re.compile(rb"[0-9A-Za-z+/]{21}[AQgw]==")


# --- an opening that is not complete --------------------------------------------------------------


def _not_a_token(first: int) -> Refusal:
    if first == 0x16:
        return Refusal(0, RefusalReason.TLS, "This port does not speak TLS.")
    # What is not printable comes from no HTTP client: an answer would be noise in another protocol.
    status = 400 if 0x20 <= first <= 0x7E else 0
    return Refusal(status, RefusalReason.NOT_HTTP, "A request begins with its method.")


def _incomplete(data: bytes, match: re.Match[bytes]) -> Refusal | NeedMore:
    """The verdict at the first byte after `match`, the beginning of a valid head without its blank line."""
    position = match.end()
    _, target, minor, fields_start, _ = match.groups()
    if fields_start is not None and data.count(b"\n", match.start(4), position) > MAX_FIELDS:
        return _TOO_MANY_FIELDS
    if position == MAX_HEAD_BYTES:
        return Refusal(431, RefusalReason.HEAD_TOO_LARGE, f"The request head exceeds {MAX_HEAD_BYTES} bytes.")
    if position == len(data):
        return NEED_MORE
    if fields_start is not None:
        return Refusal(400, RefusalReason.BAD_FIELD, f"Byte {position} of the head can't be part of a header field.")
    if target is None or minor is not None:
        return _bad_request_line(position)
    if position > match.end(2):
        return Refusal(400, RefusalReason.BAD_VERSION, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if len(target) == MAX_TARGET_BYTES:
        return Refusal(414, RefusalReason.TARGET_TOO_LONG, f"The request target exceeds {MAX_TARGET_BYTES} bytes.")
    return _bad_request_line(position)


def _bad_request_line(position: int) -> Refusal:
    return Refusal(400, RefusalReason.BAD_REQUEST_LINE, f"Byte {position} of the head can't be part of a request line.")


_TOO_MANY_FIELDS = Refusal(431, RefusalReason.TOO_MANY_FIELDS, f"The request head has over {MAX_FIELDS} fields.")


# --- a head that is complete ----------------------------------------------------------------------

_JUDGED = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"upgrade",
        b"connection",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"origin",
    )
)
_NONE: tuple[bytes, ...] = ()
_SLASH = 0x2F
_Found = dict[bytes, list[bytes]]


def _judged(
    method: bytes, target: bytes, version: bytes, fields: list[tuple[bytes, bytes]], size: int
) -> Head | Refusal:
    """The head with these syntactically valid parts, or what is wrong between them."""
    found: _Found = {}
    for name, value in fields:
        if name in _JUDGED:
            if name in found:
                found[name].append(value)
            else:
                found[name] = [value]
    is_current = version == b"1.1"
    refusal = None if target[0] == _SLASH and method != b"CONNECT" else _target_fault(method, target)
    refusal = refusal or _host_fault(found, is_current)
    if refusal is None and (b"content-length" in found or b"transfer-encoding" in found):
        refusal = _framing_fault(found, is_current)
    is_websocket = b"upgrade" in found and _asks_for_websocket(found)
    if refusal is None and is_websocket:
        refusal = _handshake_fault(method, found, is_current)
    if refusal is not None:
        return refusal
    text = target.decode("ascii")
    path, _, query = text.partition("?")
    first = first_values(fields)
    return Head(method.decode("ascii"), text, path, query, version.decode("ascii"), fields, size, is_websocket, first)


def _target_fault(method: bytes, target: bytes) -> Refusal | None:
    # Origin-form only. absolute-form (`GET http://a/ …`) and authority-form (`CONNECT a:80`) name a host a
    # second time beside Host: whoever of us and the application reads the other one has another request. And what
    # a 200 to CONNECT begins is no HTTP any more, for whoever stands between.
    if target == b"*" and method == b"OPTIONS":
        return None
    return Refusal(400, RefusalReason.BAD_TARGET, "The request target has to be a path that begins with a slash.")


def _host_fault(found: _Found, is_current: bool) -> Refusal | None:
    hosts = found.get(b"host", _NONE)
    if len(hosts) == 1:
        if _HOST.fullmatch(hosts[0]):
            return None
    elif not hosts and not is_current:
        return None  # HTTP/1.0 had no Host: the health checks of balancers look so
    return Refusal(400, RefusalReason.BAD_HOST, "Exactly one valid Host field is needed (RFC 9112, 3.2).")


def _framing_fault(found: _Found, is_current: bool) -> Refusal | None:
    """RFC 9112 §6: one reading of where the body ends, or none."""
    lengths = found.get(b"content-length", _NONE)
    codings = found.get(b"transfer-encoding", _NONE)
    if codings and (not is_current or lengths or len(codings) > 1 or codings[0].lower() != b"chunked"):
        return Refusal(
            400,
            RefusalReason.BAD_TRANSFER_ENCODING,
            "Transfer-Encoding can only be chunked, once, in HTTP/1.1 and without Content-Length.",
        )
    if lengths and (len(lengths) > 1 or not _CONTENT_LENGTH.fullmatch(lengths[0])):
        return Refusal(400, RefusalReason.BAD_CONTENT_LENGTH, "Content-Length has to be one decimal number.")
    return None


def _tokens(values: list[bytes]) -> list[bytes]:
    return [token.strip(b" \t") for token in b",".join(values).lower().split(b",")]


def _asks_for_websocket(found: _Found) -> bool:
    # Without `Connection: upgrade` the Upgrade field was meant for another hop, and a server ignores it
    # (RFC 9110 §7.8).
    return b"websocket" in _tokens(found[b"upgrade"]) and b"upgrade" in _tokens(found.get(b"connection", []))


def _handshake_fault(method: bytes, found: _Found, is_current: bool) -> Refusal | None:
    """RFC 6455 §4.2.1, and nothing that another parser could take for something else than a handshake."""
    if (
        method != b"GET"
        or not is_current
        or b"content-length" in found
        or b"transfer-encoding" in found
        or len(_tokens(found[b"upgrade"])) != 1
    ):
        return Refusal(
            400,
            RefusalReason.BAD_UPGRADE,
            "A WebSocket opens with GET and HTTP/1.1, no body and no other upgrade.",
        )
    if found.get(b"sec-websocket-version") != [b"13"]:
        return _BAD_WEBSOCKET_VERSION
    keys = found.get(b"sec-websocket-key", _NONE)
    if len(keys) != 1 or not _WEBSOCKET_KEY.fullmatch(keys[0]):
        return Refusal(
            400,
            RefusalReason.BAD_WEBSOCKET_KEY,
            "Exactly one Sec-WebSocket-Key of 16 bytes in base64 is needed.",
        )
    if len(found.get(b"origin", _NONE)) > 1:
        return Refusal(400, RefusalReason.SEVERAL_ORIGINS, "A page has one Origin.")
    return None


_BAD_WEBSOCKET_VERSION = Refusal(
    426,
    RefusalReason.BAD_WEBSOCKET_VERSION,
    "Exactly one Sec-WebSocket-Version of 13 is needed.",
    # RFC 6455 §4.4 asks for the first, RFC 9110 §15.5.22 for the second.
    (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")),
)
