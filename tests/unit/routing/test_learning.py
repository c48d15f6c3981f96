"""What is learnt from an answer: Engine.IO's in every form that its servers have sent, fields, and cookies."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_heads import head_bytes

from stickygw.routing.keys import Key, parse_key
from stickygw.routing.learning import (
    MAX_BODY_BYTES,
    decoded,
    differs_by_request,
    is_engineio,
    is_unknown_session,
    parse_learn,
)
from stickygw.routing.request_head import NEED_MORE, Head, NeedMore, examine

ENGINEIO = parse_learn("engineio")
OPEN = b'0{"sid":"lv_VI97HAXpY6yYWAAAB","upgrades":["websocket"],"pingTimeout":20000,"maxPayload":1000000}'
SID = b"lv_VI97HAXpY6yYWAAAB"
BODIES = [
    OPEN,
    OPEN + b'\x1e40{"sid":"other"}',
    OPEN.replace(b'"sid":', b'"pingInterval":25000, "sid" : '),
    b"97:" + OPEN + b"2:40",
    b"\x00\x09\x07\xff" + OPEN,
    b'___eio[12]("' + OPEN.replace(b'"', b'\\"') + b'");',
]


def request(target: str, method: str = "GET", **fields: str) -> Head:
    found = examine(head_bytes(f"{method} {target} HTTP/1.1", [("Host", "a"), *fields.items()]))
    assert isinstance(found, Head)
    return found


def learnt(body: bytes, *, is_whole: bool = True) -> bytes | NeedMore | None:
    return ENGINEIO.in_body(body, is_whole=is_whole)


@pytest.mark.parametrize("body", BODIES)
def test_engineio_id_is_found_at_every_cut_or_more_is_needed(body: bytes) -> None:
    end = body.index(SID) + len(SID)
    verdicts = [learnt(body[:cut], is_whole=False) for cut in range(len(body) + 1)]

    assert all(verdict is NEED_MORE for verdict in verdicts[: end + 1])
    first = next(cut for cut, verdict in enumerate(verdicts) if verdict is not NEED_MORE)
    assert first <= end + 2, "the closing quote is enough"
    assert all(verdict == SID for verdict in verdicts[first:])


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"<html>", b'{"sid":"a"}', b"0", b'40{"sid":"a"}', b'0{"pid":"a"}', b'0{}{"sid":"a"}']
)
def test_another_body_has_no_engineio_id(body: bytes) -> None:
    assert learnt(body) is None


@given(st.binary(max_size=80) | st.text('0{}"sid:\\_eio[]()1', max_size=40).map(str.encode), st.booleans())
def test_any_body_gives_an_id_or_none_and_more_bytes_change_no_verdict(body: bytes, is_whole: bool) -> None:
    verdict = learnt(body, is_whole=is_whole)
    assert verdict is None or isinstance(verdict, bytes) or not is_whole
    for cut in range(len(body)):
        if learnt(body[:cut], is_whole=False) is not NEED_MORE:
            assert learnt(body[:cut], is_whole=False) == learnt(body, is_whole=is_whole)


def test_body_is_looked_at_up_to_its_bound() -> None:
    assert learnt(b'0{"x":"' + b"a" * (MAX_BODY_BYTES - 8), is_whole=False) is NEED_MORE
    assert learnt(b'0{"x":"' + b"a" * MAX_BODY_BYTES, is_whole=False) is None


def test_engineio_id_is_as_the_query_will_have_it() -> None:
    assert learnt(b'0{"sid":"a b/c=(1)"}') == b"a%20b%2Fc%3D(1)"
    assert ENGINEIO.key.of(request("/?EIO=4&sid=a%20b"), "") == ENGINEIO.key.for_value(b"a%20b")


@pytest.mark.parametrize(
    ("target", "method", "status", "expected"),
    [
        ("/socket.io/?EIO=4&transport=polling", "GET", 200, True),
        ("/socket.io/?t=x&EIO=4", "GET", 200, True),
        ("/socket.io/?EIO=4&transport=polling&sid=x", "GET", 200, False),
        ("/socket.io/?EIO=4&transport=polling", "POST", 200, False),
        ("/socket.io/?EIO=4&transport=polling", "GET", 401, False),
        ("/socket.io/?transport=polling", "GET", 200, False),
        ("/EIO=4", "GET", 200, False),
    ],
)
def test_only_the_answer_to_a_handshake_is_looked_into(target: str, method: str, status: int, expected: bool) -> None:
    assert ENGINEIO.is_in_body(request(target, method), status) is expected
    assert not parse_learn("header:a").is_in_body(request(target, method), status)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_compressed_body_is_read_from_its_first_bytes_and_never_beyond_the_bound(compress) -> None:
    coding = b"gzip" if compress is gzip.compress else b"Deflate"
    packed = compress(OPEN + b"a" * 1_000_000)

    assert decoded(packed, coding) == (OPEN + b"a" * MAX_BODY_BYTES)[:MAX_BODY_BYTES]
    assert decoded(packed[:1], coding) == b""
    assert decoded(b"none of it", coding) == b""
    assert decoded(packed, b"br") == packed


def test_header_id_is_the_field_of_that_name() -> None:
    kind = parse_learn("header:Mcp-Session-Id")
    assert kind.in_head([(b"x", b"1"), (b"mcp-session-id", b" 7 "), (b"mcp-session-id", b"8")]) == b"7"
    assert kind.in_head([(b"mcp-session", b"7")]) is None
    assert kind.key.of(request("/", **{"mcp-session-id": "7"}), "") == kind.key.for_value(b"7")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"sid=a; Path=/; Max-Age=10"], b"a"),
        ([b"sid=a=b"], b"a=b"),
        ([b'sid="a"'], b'"a"'),
        ([b"xsid=a", b"SID=b", b"sid", b"x=sid=1"], None),
        ([b"sid=a", b"sid=b"], b"b"),
        ([b"sid=a; max-age=0", b"x=y"], None),
        ([b"sid=a; Max-Age=-1"], None),
        ([b"sid=a; Max-Age=0", b"sid=b"], b"b"),
        ([b"sid=; Path=/"], b""),
        ([], None),
    ],
)
def test_cookie_id_is_what_the_client_will_send_back(lines: list[bytes], expected: bytes | None) -> None:
    kind = parse_learn("cookie:sid")
    assert kind.in_head([(b"set-cookie", line) for line in lines]) == expected


@pytest.mark.parametrize(
    ("text", "key"),
    [("engineio", "query:sid"), ("header:Mcp-Session-Id", "header:Mcp-Session-Id"), ("cookie:sid", "cookie:sid")],
)
def test_each_implies_its_key(text: str, key: str) -> None:
    assert parse_learn(text).text == text
    assert parse_learn(text).key.text == key


@pytest.mark.parametrize(
    "text", ["", "cookie", "ip", "query:sid", "engineio:x", "Engineio", "header", "header:", "cookie:a b", "path:/{id}"]
)
def test_what_cannot_be_learnt_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be learnt: give engineio, header:NAME or cookie:NAME") as caught:
        parse_learn(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'"Invalid session lv_VI97HAXpY6yYWAAAB"', True),
        (400, b'{"code":1,"message":"Session ID unknown"}', True),
        (400, b'"Invalid transport"', False),
        (200, b'"Invalid session x"', False),
    ],
)
def test_unknown_session_is_told_by_what_the_servers_say(status: int, body: bytes, expected: bool) -> None:
    assert is_unknown_session(status, body) is expected


def test_engineio_is_told_by_its_version_in_the_query() -> None:
    assert is_engineio(request("/?EIO=4"))
    assert not is_engineio(request("/?XEIO=4&x=EIO="))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["cookie"], False), (["cookie", "ip"], False), (["ip", "query:a"], True), (["cookie:a"], True), ([], False)],
)
def test_requests_of_a_connection_differ_by_any_key_but_the_clients_own(texts: list[str], expected: bool) -> None:
    keys: list[Key] = [parse_key(text) for text in texts]
    assert differs_by_request(keys) is expected
