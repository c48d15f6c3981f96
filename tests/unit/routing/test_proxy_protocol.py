"""PROXY headers of both versions, against examples in the form of HAProxy's proxy-protocol.txt."""

from __future__ import annotations

from ipaddress import IPv6Address
from struct import pack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stickygw.routing.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BODY_BYTES,
    ProxyHeader,
    may_start_proxy_header,
    read_proxy_header,
)
from stickygw.routing.request_head import NEED_MORE, Refusal, RefusalReason

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4_ADDRESSES = bytes((192, 0, 2, 7, 10, 0, 0, 1)) + pack("!HH", 56324, 443)
TCP6_ADDRESSES = IPv6Address("2001:db8::7").packed + IPv6Address("::1").packed + pack("!HH", 56324, 443)
MAPPED_ADDRESSES = IPv6Address("::ffff:192.0.2.7").packed * 2 + pack("!HH", 1, 2)


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + pack("!BBH", command, family, len(body)) + body


V1_LONGEST = b"PROXY UNKNOWN %b %b 65535 65535\r\n" % ((b"ffff:" * 7 + b"ffff",) * 2)

VALID = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", "192.0.2.7", 56324),
    "v1 TCP6": (b"PROXY TCP6 2001:DB8:0::7 ::1 56324 443\r\n", "2001:db8::7", 56324),
    "v1 TCP6 with IPv4 inside": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", "192.0.2.7", 1),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None, 0),
    "v1 of the greatest length": (V1_LONGEST, None, 0),
    "v2 TCP4": (v2(0x21, 0x11, TCP4_ADDRESSES), "192.0.2.7", 56324),
    "v2 TCP4 with TLVs": (v2(0x21, 0x11, TCP4_ADDRESSES + b"\x04\x00\x02hi"), "192.0.2.7", 56324),
    "v2 TCP6": (v2(0x21, 0x21, TCP6_ADDRESSES), "2001:db8::7", 56324),
    "v2 TCP6 with IPv4 inside": (v2(0x21, 0x21, MAPPED_ADDRESSES), "192.0.2.7", 1),
    "v2 Unix": (v2(0x21, 0x31, b"/a".ljust(216, b"\x00")), None, 0),
    "v2 of an unspecified family": (v2(0x21, 0x00, b""), None, 0),
    "v2 LOCAL": (v2(0x20, 0x00, b""), None, 0),
    "v2 LOCAL with addresses to be skipped": (v2(0x20, 0x11, TCP4_ADDRESSES), None, 0),
    "v2 of the greatest length": (v2(0x21, 0x00, bytes(MAX_V2_BODY_BYTES)), None, 0),
}

REFUSED = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "POST, which begins like PROXY": b"POST",
    "TLS": b"\x16\x03\x01",
    "v1 without addresses": b"PROXY TCP4\r\n",
    "v1 of another family": b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1 with an IPv6 address in TCP4": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "v1 with an IPv4 address in TCP6": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
    "v1 with a bad source": b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
    "v1 with a bad destination": b"PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n",
    "v1 with a zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "v1 with a port too great": b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
    "v1 with a destination port too great": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
    "v1 with a zero before the port": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
    "v1 with two spaces": b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
    "v1 with more behind": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
    "v1 one byte too long": V1_LONGEST.replace(b"UNKNOWN ", b"UNKNOWN  "),
    "v1 without end": b"PROXY UNKNOWN" + b" " * MAX_V1_BYTES,
    "v2 of version 1": v2(0x11, 0x11, TCP4_ADDRESSES),
    "v2 of version 3": v2(0x31, 0x11, TCP4_ADDRESSES),
    "v2 of an unknown command": v2(0x22, 0x11, TCP4_ADDRESSES),
    "v2 with datagrams": v2(0x21, 0x12, TCP4_ADDRESSES),
    "v2 of an unknown family": v2(0x21, 0x41, TCP4_ADDRESSES),
    "v2 with half an address": v2(0x21, 0x11, TCP4_ADDRESSES[:-1]),
    "v2 too long": v2(0x21, 0x11, bytes(MAX_V2_BODY_BYTES + 1)),
}


@pytest.mark.parametrize(("data", "host", "port"), VALID.values(), ids=VALID)
def test_proxy_header_names_the_client(data: bytes, host: str | None, port: int) -> None:
    assert read_proxy_header(data + b"GET /") == ProxyHeader(len(data), host, port)


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_malformed_proxy_header_is_refused(data: bytes) -> None:
    verdict = read_proxy_header(data)

    assert isinstance(verdict, Refusal)
    assert verdict.reason is RefusalReason.BAD_PROXY_HEADER


def test_too_long_header_is_refused_before_it_has_come() -> None:
    assert read_proxy_header(V1_LONGEST.replace(b"\r\n", b" ")) is NEED_MORE
    assert isinstance(read_proxy_header(V1_LONGEST.replace(b"\r\n", b"  ")), Refusal)
    assert isinstance(read_proxy_header(v2(0x21, 0x11, bytes(MAX_V2_BODY_BYTES + 1))[:16]), Refusal)


def test_other_openings_do_not_start_a_proxy_header() -> None:
    assert may_start_proxy_header(b"")
    assert may_start_proxy_header(b"P")
    assert may_start_proxy_header(b"\r\n\r\n")
    assert not may_start_proxy_header(b"PO")
    assert not may_start_proxy_header(b"PROXYING / HTTP/1.1")
    assert not may_start_proxy_header(b"\r\nGET")


@st.composite
def openings(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from([*(row[0] for row in VALID.values()), *REFUSED.values()]))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, min(len(data), 120)))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data + draw(st.binary(max_size=3))


@settings(deadline=None, max_examples=300)
@given(st.one_of(openings(), st.binary(max_size=20), st.binary(max_size=20).map(SIGNATURE.__add__)))
@example(b"PROXY UNKNOWN".ljust(MAX_V1_BYTES - 1) + b"\r\n")
def test_every_segmentation_gives_the_same_verdict(data: bytes) -> None:
    verdicts = [read_proxy_header(data[:cut]) for cut in range(len(data) + 1)]
    decided = [verdict for verdict in verdicts if verdict is not NEED_MORE]

    assert all(verdict == decided[-1] for verdict in decided)
    assert verdicts[len(verdicts) - len(decided) :] == decided, "decided, then undecided again"
