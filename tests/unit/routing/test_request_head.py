"""The one strict gate: what it lets through, what it refuses, and that it never depends on how the bytes came."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from routing_heads import BROWSER_FIELDS, KEY, handshake, head_bytes
from websockets.http11 import Request
from websockets.streams import StreamReader

from stickygw.routing.request_head import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_METHOD_BYTES,
    MAX_TARGET_BYTES,
    NEED_MORE,
    Head,
    Refusal,
    RefusalReason,
    examine,
    examine_further,
)

HOST = ("Host", "example.com")
UPGRADE = (HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket"))
VERSION = ("Sec-WebSocket-Version", "13")
VALID_KEY = ("Sec-WebSocket-Key", KEY)


def plain(*fields: tuple[str, str], line: str = "GET / HTTP/1.1") -> bytes:
    return head_bytes(line, (HOST, *fields))


def bare(line: str, *fields: tuple[str, str]) -> bytes:
    return head_bytes(line, fields)


def upgrade(*fields: tuple[str, str], line: str = "GET /ws HTTP/1.1") -> bytes:
    return head_bytes(line, (*UPGRADE, *fields))


def filled(size: int) -> bytes:
    """A valid head of exactly `size` bytes."""
    empty = plain(("X", ""))
    return empty.replace(b"X: ", b"X: " + b"a" * (size - len(empty)))


VALID_WEBSOCKETS = {
    "a browser's handshake": handshake(),
    "the least handshake": upgrade(VERSION, VALID_KEY),
    "no origin, as from a program": handshake(without="Origin"),
    "tokens in any case": bare(
        "GET / HTTP/1.1", HOST, ("upgrade", "WebSocket"), ("connection", "UPGRADE"), VERSION, VALID_KEY
    ),
    "Firefox keeps alive and upgrades": bare(
        "GET / HTTP/1.1", HOST, ("Connection", "keep-alive, Upgrade"), UPGRADE[2], VERSION, VALID_KEY
    ),
    "two Connection fields": upgrade(("Connection", "keep-alive"), VERSION, VALID_KEY),
    "two Cookie fields": handshake(extra=[("Cookie", "a=1"), ("Cookie", "b=2")]),
    "8-bit bytes in a cookie": handshake(extra=[("Cookie", "name=J\xfcrgen")]),
    "an IPv6 host": handshake(without="Host", extra=[("Host", "[::1]:8000")]),
    "a Docker host": handshake(without="Host", extra=[("Host", "chat_1:80")]),
    "a query": handshake(target="/ws?token=a%20b&x={y}|z"),
    "two slashes in front": handshake(target="//ws"),
}

VALID_PLAIN = {
    "a GET": plain(),
    "a health check of HTTP/1.0": bare("GET /healthz HTTP/1.0"),
    "HTTP/1.0 with a host": plain(line="GET / HTTP/1.0"),
    "OPTIONS of the server": plain(line="OPTIONS * HTTP/1.1"),
    "OPTIONS of the server in 1.0": bare("OPTIONS * HTTP/1.0"),
    "a POST with a length": plain(("Content-Length", "3"), line="POST / HTTP/1.1"),
    "a chunked POST": plain(("Transfer-Encoding", "chunked"), line="POST / HTTP/1.1"),
    "a coding's name in capitals": plain(("Transfer-Encoding", "Chunked"), line="POST / HTTP/1.1"),
    "an unknown method": plain(line="BREW /pot HTTP/1.1"),
    "an empty value": plain(("X-Empty", "")),
    "no space after the colon": b"GET / HTTP/1.1\r\nHost:a\r\n\r\n",
    "white space around the value": b"GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n",
    "an upgrade to HTTP/2": plain(("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c")),
    "Upgrade that Connection does not name": plain(("Upgrade", "websocket")),
    "Connection without Upgrade": plain(("Connection", "Upgrade")),
    "as many fields as allowed": plain(*[("X", "y")] * (MAX_FIELDS - 1)),
    "a head as large as allowed": filled(MAX_HEAD_BYTES),
    "a target as long as allowed": plain(line=f"GET /{'a' * (MAX_TARGET_BYTES - 1)} HTTP/1.1"),
    "a method as long as allowed": plain(line=f"{'M' * MAX_METHOD_BYTES} / HTTP/1.1"),
    "bytes after the head": plain() + b"\x00\xff anything",
}

R = RefusalReason
REFUSED = {
    "a TLS ClientHello": (b"\x16\x03\x01\x02\x00\x01", 0, R.TLS),
    "a PROXY v2 signature": (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", 0, R.NOT_HTTP),
    "a NUL first": (b"\x00", 0, R.NOT_HTTP),
    "an 8-bit byte first": (b"\xffGET / HTTP/1.1\r\n", 0, R.NOT_HTTP),
    "a line break first": (b"\r\n" + plain(), 0, R.NOT_HTTP),
    "a space first": (b" " + plain(), 400, R.NOT_HTTP),
    "a separator first": (b"{", 400, R.NOT_HTTP),
    "a PROXY v1 header": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", 400, R.BAD_VERSION),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, R.BAD_VERSION),
    "HTTP/0.9": (b"GET /\r\n", 400, R.BAD_REQUEST_LINE),
    "HTTP/1.2": (plain(line="GET / HTTP/1.2"), 400, R.BAD_VERSION),
    "HTTP/1.10": (plain(line="GET / HTTP/1.10"), 400, R.BAD_REQUEST_LINE),
    "HTTP in small letters": (plain(line="GET / http/1.1"), 400, R.BAD_VERSION),
    "RTSP": (plain(line="GET / RTSP/1.0"), 400, R.BAD_VERSION),
    "a method that is too long": (b"M" * (MAX_METHOD_BYTES + 1), 400, R.BAD_REQUEST_LINE),
    "two spaces after the method": (plain(line="GET  / HTTP/1.1"), 400, R.BAD_REQUEST_LINE),
    "two spaces after the target": (plain(line="GET /  HTTP/1.1"), 400, R.BAD_VERSION),
    "a tab in the request line": (plain(line="GET\t/ HTTP/1.1"), 400, R.BAD_REQUEST_LINE),
    "a space at the request line's end": (plain(line="GET / HTTP/1.1 "), 400, R.BAD_REQUEST_LINE),
    "a bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\n\n", 400, R.BAD_REQUEST_LINE),
    "a fragment": (plain(line="GET /#x HTTP/1.1"), 400, R.BAD_REQUEST_LINE),
    "an 8-bit byte in the target": (plain(line="GET /\xfc HTTP/1.1"), 400, R.BAD_REQUEST_LINE),
    "a NUL in the target": (plain(line="GET /\x00 HTTP/1.1"), 400, R.BAD_REQUEST_LINE),
    "a target that is too long": (b"GET /" + b"a" * MAX_TARGET_BYTES, 414, R.TARGET_TOO_LONG),
    "an absolute target": (plain(line="GET http://example.com/ HTTP/1.1"), 400, R.BAD_TARGET),
    "an authority as target": (plain(line="CONNECT example.com:80 HTTP/1.1"), 400, R.BAD_TARGET),
    "CONNECT to a path": (plain(line="CONNECT / HTTP/1.1"), 400, R.BAD_TARGET),
    "GET of the server": (plain(line="GET * HTTP/1.1"), 400, R.BAD_TARGET),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, R.BAD_FIELD),
    "a field without a name": (b"GET / HTTP/1.1\r\n: a\r\n\r\n", 400, R.BAD_FIELD),
    "a line without a colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", 400, R.BAD_FIELD),
    "a folded line": (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400, R.BAD_FIELD),
    "an 8-bit byte in a name": (plain(("H\xfc", "a")), 400, R.BAD_FIELD),
    "a bare CR in a value": (plain(("X", "a\rb")), 400, R.BAD_FIELD),
    "a bare LF in a value": (plain(("X", "a\nb: c")), 400, R.BAD_FIELD),
    "a NUL in a value": (plain(("X", "a\x00b")), 400, R.BAD_FIELD),
    "a DEL in a value": (plain(("X", "a\x7fb")), 400, R.BAD_FIELD),
    "bare LFs at the end": (b"GET / HTTP/1.1\r\nHost: a\n\n", 400, R.BAD_FIELD),
    "a field too many": (plain(*[("X", "y")] * MAX_FIELDS), 431, R.TOO_MANY_FIELDS),
    "fields without end": (b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 5000, 431, R.TOO_MANY_FIELDS),
    "a head one byte too large": (filled(MAX_HEAD_BYTES + 1), 431, R.HEAD_TOO_LARGE),
    "a head without end": (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES, 431, R.HEAD_TOO_LARGE),
    "no host": (bare("GET / HTTP/1.1"), 400, R.BAD_HOST),
    "two hosts": (plain(HOST), 400, R.BAD_HOST),
    "two hosts in HTTP/1.0": (plain(HOST, line="GET / HTTP/1.0"), 400, R.BAD_HOST),
    "an empty host": (bare("GET / HTTP/1.1", ("Host", "")), 400, R.BAD_HOST),
    "two hosts in one field": (bare("GET / HTTP/1.1", ("Host", "a, b")), 400, R.BAD_HOST),
    "a host with a path": (bare("GET / HTTP/1.1", ("Host", "a/b")), 400, R.BAD_HOST),
    "a host with a user": (bare("GET / HTTP/1.1", ("Host", "a@b")), 400, R.BAD_HOST),
    "a host with a strange port": (bare("GET / HTTP/1.1", ("Host", "a:b")), 400, R.BAD_HOST),
    "two lengths": (plain(("Content-Length", "3"), ("Content-Length", "3")), 400, R.BAD_CONTENT_LENGTH),
    "two lengths in one field": (plain(("Content-Length", "3, 3")), 400, R.BAD_CONTENT_LENGTH),
    "a length with a sign": (plain(("Content-Length", "+3")), 400, R.BAD_CONTENT_LENGTH),
    "a length in hex": (plain(("Content-Length", "0x3")), 400, R.BAD_CONTENT_LENGTH),
    "an empty length": (plain(("Content-Length", "")), 400, R.BAD_CONTENT_LENGTH),
    "a length of 19 digits": (plain(("Content-Length", "1" * 19)), 400, R.BAD_CONTENT_LENGTH),
    "a length and a coding": (
        plain(("Content-Length", "3"), ("Transfer-Encoding", "chunked")),
        400,
        R.BAD_TRANSFER_ENCODING,
    ),
    "another coding": (plain(("Transfer-Encoding", "gzip, chunked")), 400, R.BAD_TRANSFER_ENCODING),
    "two codings": (plain(*[("Transfer-Encoding", "chunked")] * 2), 400, R.BAD_TRANSFER_ENCODING),
    "a coding behind a vertical tab": (plain(("Transfer-Encoding", "\x0bchunked")), 400, R.BAD_FIELD),
    "a coding in HTTP/1.0": (
        plain(("Transfer-Encoding", "chunked"), line="POST / HTTP/1.0"),
        400,
        R.BAD_TRANSFER_ENCODING,
    ),
    "a handshake by POST": (upgrade(VERSION, VALID_KEY, line="POST / HTTP/1.1"), 400, R.BAD_UPGRADE),
    "a handshake in HTTP/1.0": (upgrade(VERSION, VALID_KEY, line="GET / HTTP/1.0"), 400, R.BAD_UPGRADE),
    "a handshake with a body": (upgrade(VERSION, VALID_KEY, ("Content-Length", "0")), 400, R.BAD_UPGRADE),
    "a handshake with chunks": (
        upgrade(VERSION, VALID_KEY, ("Transfer-Encoding", "chunked")),
        400,
        R.BAD_UPGRADE,
    ),
    "two upgrades": (upgrade(("Upgrade", "h2c"), VERSION, VALID_KEY), 400, R.BAD_UPGRADE),
    "websocket twice": (upgrade(("Upgrade", "websocket"), VERSION, VALID_KEY), 400, R.BAD_UPGRADE),
    "no websocket version": (upgrade(VALID_KEY), 426, R.BAD_WEBSOCKET_VERSION),
    "websocket version 8": (upgrade(("Sec-WebSocket-Version", "8")), 426, R.BAD_WEBSOCKET_VERSION),
    "two websocket versions": (upgrade(VERSION, VERSION, VALID_KEY), 426, R.BAD_WEBSOCKET_VERSION),
    "no key": (upgrade(VERSION), 400, R.BAD_WEBSOCKET_KEY),
    "two keys": (upgrade(VERSION, VALID_KEY, VALID_KEY), 400, R.BAD_WEBSOCKET_KEY),
    "an empty key": (upgrade(VERSION, ("Sec-WebSocket-Key", "")), 400, R.BAD_WEBSOCKET_KEY),
    "a key of 15 bytes": (
        upgrade(VERSION, ("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2Rl")),
        400,
        R.BAD_WEBSOCKET_KEY,
    ),
    "a key that is not canonical": (
        upgrade(VERSION, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR==")),
        400,
        R.BAD_WEBSOCKET_KEY,
    ),
    "two origins": (handshake(extra=[("Origin", "http://evil.example")]), 400, R.SEVERAL_ORIGINS),
}


@pytest.mark.parametrize("data", VALID_WEBSOCKETS.values(), ids=VALID_WEBSOCKETS)
def test_handshake_is_let_through(data: bytes) -> None:
    verdict = examine(data)

    assert isinstance(verdict, Head)
    assert verdict.is_websocket


@pytest.mark.parametrize("data", VALID_PLAIN.values(), ids=VALID_PLAIN)
def test_plain_request_is_let_through(data: bytes) -> None:
    verdict = examine(data)

    assert isinstance(verdict, Head)
    assert not verdict.is_websocket


@pytest.mark.parametrize(("data", "status", "reason"), REFUSED.values(), ids=REFUSED)
def test_malformed_opening_is_refused(data: bytes, status: int, reason: RefusalReason) -> None:
    verdict = examine(data)

    assert isinstance(verdict, Refusal)
    assert (verdict.status, verdict.reason) == (status, reason)


@pytest.mark.parametrize(
    "reason", [R.BAD_REQUEST_LINE, R.BAD_VERSION, R.BAD_FIELD, R.NOT_HTTP, R.TLS, R.TARGET_TOO_LONG]
)
def test_bad_byte_is_refused_when_it_comes_and_not_at_the_blank_line(reason: RefusalReason) -> None:
    for data, _, expected in REFUSED.values():
        if expected is reason:
            first = next(cut for cut in range(len(data) + 1) if examine(data[:cut]) is not NEED_MORE)
            assert b"\r\n\r\n" not in data[:first] or data[:2] == b"\r\n"


def test_head_has_the_parts_of_the_request() -> None:
    data = bare("GET /a/b?c=%20d?e HTTP/1.1", ("HOST", "x"), ("X-Many", "1"), ("x-many", " 2\t"))

    verdict = examine(data + b"\x81\x00")

    assert isinstance(verdict, Head)
    assert (verdict.method, verdict.version) == ("GET", "1.1")
    assert (verdict.target, verdict.path, verdict.query) == ("/a/b?c=%20d?e", "/a/b", "c=%20d?e")
    assert verdict.size == len(data)
    assert verdict.get(b"host") == b"x"
    assert verdict.get(b"x-many") == b"1"
    assert verdict.get_all(b"x-many") == [b"1", b"2"]
    assert verdict.get(b"cookie") is None


def test_wrong_websocket_version_is_told_the_right_one() -> None:
    verdict = examine(upgrade(VALID_KEY))

    assert isinstance(verdict, Refusal)
    assert ("Sec-WebSocket-Version", "13") in verdict.fields


# --- properties -------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\x7f", b"\x80", b"\xff", b"#", b"?", b"*", b",", b"/"]
    + [b"\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"GET ", b"POST ", b"websocket", b"Upgrade"]
    + [f"{name}: {value}\r\n".encode() for name, value in BROWSER_FIELDS]
    + [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X:\r\n" * 60, b"X:\r\n" * 101]
    + [b"a" * 8000, b"a" * 9000, b"a" * MAX_HEAD_BYTES, b"X: " + b"b" * 8000 + b"\r\n"]
)
STARTS = st.sampled_from([*VALID_WEBSOCKETS.values(), *VALID_PLAIN.values(), *(row[0] for row in REFUSED.values())])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A head near a valid one: pieces put in, taken out, put twice or changed."""
    data = draw(STARTS)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, min(len(data), 1000)))
        upto = draw(st.integers(at, min(len(data), at + 60)))
        change = draw(st.sampled_from(["insert", "delete", "double", "replace"]))
        piece = {
            "insert": draw(PIECES) + data[at:upto],
            "delete": b"",
            "double": data[at:upto] * 2,
            "replace": draw(st.binary(max_size=3)),
        }[change]
        data = data[:at] + piece + data[upto:]
    return data


@st.composite
def assembled(draw: st.DrawFn) -> bytes:
    """A head made from parts, each good or bad."""
    line = b" ".join(
        (
            draw(st.sampled_from([b"GET", b"POST", b"OPTIONS", b"get", b"G ET", b"", b"M" * 33])),
            draw(st.sampled_from([b"/", b"*", b"/a?b#c", b"http://a/", b"", b"/" + b"a" * 8191, b"/" * 8193])),
            draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTP", b""])),
        )
    )
    good = [f"{name}: {value}".encode("latin-1") for name, value in BROWSER_FIELDS]
    field = st.sampled_from([*good, b"Host: b", b"Host:", b" folded", b"a b: c", b"x:\x00", b"y:" + b"z" * 5000])
    fields = draw(st.lists(field, max_size=20)) * draw(st.sampled_from([1, 1, 1, 6]))
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    return end.join([line, *fields, b"", b""]) + draw(st.binary(max_size=4))


OPENINGS = st.one_of(st.binary(max_size=60), mutated(), assembled())

EDGES = (
    *(MAX_HEAD_BYTES + near for near in range(-3, 4)),
    *(MAX_TARGET_BYTES + near for near in range(-3, 9)),
)


LINES = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a/b?c=d HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT / HTTP/1.1\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"GET / HTTP/2.0\r\n",
    b"GET /  HTTP/1.1\r\n",
    b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n",
    b"M" * (MAX_METHOD_BYTES + 1) + b" / HTTP/1.1\r\n",
]


def cuts(data: bytes) -> list[int]:
    """Every place in the first 800 bytes and near a limit, and some between."""
    places = {*range(min(len(data), 800)), *range(800, len(data), 331), *EDGES, len(data)}
    return sorted(place for place in places if place <= len(data))


@settings(deadline=None, max_examples=300)
@given(OPENINGS)
@example(filled(MAX_HEAD_BYTES) + b"x")
@example(filled(MAX_HEAD_BYTES + 1))
@example(b"GET /" + b"a" * 9000 + b"\xff HTTP/1.1\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 101 + b"bad line\r\n\r\n")
def test_every_segmentation_gives_the_same_verdict(data: bytes) -> None:
    verdicts = [examine(data[:cut]) for cut in cuts(data)]
    decided = [verdict for verdict in verdicts if verdict is not NEED_MORE]

    assert all(verdict == examine(data) for verdict in decided)
    assert verdicts[len(verdicts) - len(decided) :] == decided, "decided, then undecided again"


@settings(deadline=None, max_examples=300)
@given(OPENINGS)
def test_no_opening_is_undecided_for_ever_or_blames_the_server(data: bytes) -> None:
    verdict = examine(data)

    if verdict is NEED_MORE:
        assert b"\r\n\r\n" not in data
        assert len(data) < MAX_HEAD_BYTES
    if isinstance(verdict, Refusal):
        assert verdict.status in (0, 400, 414, 426, 431)


@settings(deadline=None, max_examples=300)
@given(OPENINGS, st.binary(min_size=1, max_size=8))
def test_bytes_after_the_head_change_nothing(data: bytes, more: bytes) -> None:
    verdict = examine(data)

    if isinstance(verdict, Head):
        assert examine(data[: verdict.size]) == verdict
        assert examine(data[: verdict.size] + more) == verdict


def block_of(data: bytes, head: Head) -> bytes:
    return data[data.index(b"\r\n") + 2 : head.size]


@settings(deadline=None, max_examples=500)
@given(OPENINGS, st.one_of(st.none(), OPENINGS), st.sampled_from(LINES), st.binary(max_size=8))
@example(plain(), None, b"GET / HTTP/1.0\r\n", b"")
@example(handshake(), None, b"POST /ws HTTP/1.1\r\n", b"")
@example(plain(), None, b"OPTIONS * HTTP/1.1\r\n", b"")
@example(plain(), None, b"CONNECT / HTTP/1.1\r\n", b"")
@example(plain(), None, b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n", b"")
@example(filled(MAX_HEAD_BYTES), None, b"GET /" + b"a" * 200 + b" HTTP/1.1\r\n", b"")
def test_what_came_before_on_a_connection_changes_no_verdict(
    before: bytes, further: bytes | None, line: bytes, rest: bytes
) -> None:
    last = examine(before)
    if isinstance(last, Head):
        block = block_of(before, last)
        data = line + block + rest if further is None else further
        for cut in (data, data[: len(line) + len(block) - 1], data[: len(line)]):
            assert examine_further(cut, last, block) == examine(cut)
            assert examine_further(cut, last, b"") == examine(cut)


@settings(deadline=None, max_examples=300)
@given(st.one_of(mutated(), assembled()))
def test_another_parser_reads_the_same_in_what_is_let_through(data: bytes) -> None:
    verdict = examine(data)
    if not isinstance(verdict, Head) or (verdict.method, verdict.version) != ("GET", "1.1"):
        return
    if verdict.get(b"content-length") or verdict.get(b"transfer-encoding"):
        return  # that parser reads no bodies
    if any(len(line) > 8190 for line in data[: verdict.size].split(b"\n")):
        return  # longer than its lines may be

    request = read_by_websockets(data)

    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()]
    assert request.path == verdict.target
    assert fields == verdict.fields


def read_by_websockets(data: bytes) -> Request:
    reader = StreamReader()
    reader.feed_data(data)
    parsing = Request.parse(reader.read_line)
    try:
        next(parsing)
    except StopIteration as stop:
        request: Request = stop.value
        return request
    raise AssertionError("the other parser wants more")


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_one_field_changed_in_its_grammar_leaves_the_others_as_they_were(data: st.DataObject) -> None:
    value = data.draw(st.text(alphabet=[chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))], max_size=50))

    verdict = examine(handshake(extra=[("X-Any", value)]))

    assert isinstance(verdict, Head)
    assert verdict.get(b"x-any") == value.encode("latin-1")
    assert len(verdict.fields) == len(BROWSER_FIELDS) + 1
