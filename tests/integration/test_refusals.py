"""Whatever comes instead of a good request gets its answer or is closed, and harms nobody."""

import asyncio
import json
import random
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client import Client, gather_bounded
from support.gateway import Gateway
from support.logs import assert_quiet
from support.raw import UPGRADE, Raw, exchange, frame, head, parsed, upgrade

PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"
PROXY = "127.0.0.9"
"""The peer that is trusted; clients come from 127.0.0.1."""

HEADER_TIMEOUT = 1.0


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    settings = [
        f"header_timeout={HEADER_TIMEOUT:g}",
        f"trusted_proxies={PROXY}",
        "origins=same-host,https://app.example",
    ]
    options = [word for text in settings for word in ("--set", text)]
    with Gateway(PROBE, *options, "--log-level", "debug", workers=2) as gateway:
        yield gateway
        assert_quiet(gateway)


async def is_well(gateway: Gateway) -> None:
    """A good client is served at once."""
    started = time.monotonic()
    async with Client(gateway.ws_url) as client:
        await client.who()
    assert time.monotonic() - started < 5


def client_hello() -> bytes:
    """What a browser sends that was told https."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def without(name: str, *instead: tuple[str, str]) -> bytes:
    """A handshake whose field `name` is replaced."""
    return head("GET", "/", fields=[*(field for field in UPGRADE if field[0] != name), *instead])


V2 = b"\r\n\r\n\0\r\nQUIT\n"
HELLO = b"GET / HTTP/1.1\r\nHost: a\r\n"

MALFORMED: dict[str, tuple[bytes, int]] = {
    # The request line
    "no target": (b"GET\r\n\r\n", 400),
    "http 0.9": (b"GET /\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tab": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "http 2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    "another protocol": (b"OPTIONS / RTSP/1.0\r\nHost: a\r\n\r\n", 400),
    "absolute form": (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "authority form": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "8-bit target": (b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a fragment": (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "an empty line first": (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "a long method": (b"A" * 60_000, 400),
    # The fields
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (HELLO + b"Host: b\r\n\r\n", 400),
    "an odd host": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "obs-fold": (HELLO + b"X: a\r\n b\r\n\r\n", 400),
    "a space before the colon": (HELLO + b"X : a\r\n\r\n", 400),
    "no colon": (HELLO + b"X\r\n\r\n", 400),
    "no name": (HELLO + b": a\r\n\r\n", 400),
    "NUL": (HELLO + b"X: a\0b\r\n\r\n", 400),
    "bare CR": (HELLO + b"X: a\rb\r\n\r\n", 400),
    "bare LF in a value": (HELLO + b"X: a\nY: b\r\n\r\n", 400),
    "an escape sequence": (HELLO + b"X: \x1b[31m\r\n\r\n", 400),
    "length and chunks": (HELLO + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
    "two lengths": (HELLO + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    "a signed length": (HELLO + b"Content-Length: +1\r\n\r\nx", 400),
    "an odd coding": (HELLO + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    # Sizes
    "a long target": (head("GET", "/" + "a" * 9000), 414),
    "a long field": (head("GET", "/", fields=[("Cookie", "a" * 17_000)]), 431),
    "a longer field": (head("GET", "/", fields=[("Cookie", "a" * 60_000)]), 431),
    "many fields": (head("GET", "/", fields=[("X", "")] * 101), 431),
    # The handshake
    "an upgrade in HTTP/1.0": (head("GET", "/", fields=UPGRADE, version="1.0"), 400),
    "an upgrade with POST": (head("POST", "/", fields=UPGRADE), 400),
    "an upgrade with a body": (upgrade(fields=[("Content-Length", "1")]) + b"x", 400),
    "an upgrade to two protocols": (without("Upgrade", ("Upgrade", "websocket, h2c")), 400),
    "no key": (without("Sec-WebSocket-Key"), 400),
    "an empty key": (without("Sec-WebSocket-Key", ("Sec-WebSocket-Key", "")), 400),
    "a short key": (without("Sec-WebSocket-Key", ("Sec-WebSocket-Key", "AAAA")), 400),
    "two keys": (upgrade(fields=[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]), 400),
    "version 8": (without("Sec-WebSocket-Version", ("Sec-WebSocket-Version", "8")), 426),
    "no version": (without("Sec-WebSocket-Version"), 426),
    "versions 13 and 8": (upgrade(fields=[("Sec-WebSocket-Version", "8")]), 426),
    "two origins": (upgrade(fields=[("Origin", "http://127.0.0.1"), ("Origin", "http://127.0.0.1")]), 400),
    # Other protocols
    "TLS": (client_hello(), 0),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 400),
    "SMTP": (b"EHLO a\r\n", 400),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", 400),
    "PROXY v1 of a stranger": (b"PROXY TCP4 203.0.113.7 203.0.113.8 1 2\r\n" + upgrade(), 400),
    "PROXY v2 of a stranger": (V2 + b"\x21\x11\0\x0c" + bytes(12) + upgrade(), 0),
    "zeros": (bytes(1000), 0),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_opening_is_refused_and_the_next_client_served(gateway: Gateway, case: str) -> None:
    data, status = MALFORMED[case]
    async with Raw(gateway.port) as raw:
        await raw.send(data)
        answer = await raw.receive_all()  # a reset would raise
    await is_well(gateway)
    if status == 0:
        assert answer == b""
        return
    refusal = parsed(answer)
    assert refusal.status == status
    assert refusal.get("Connection") == "close"
    assert refusal.get("Content-Length") == str(len(refusal.body))
    assert refusal.cookie is None
    if status == 426:
        assert refusal.get("Sec-WebSocket-Version") == "13"


async def test_any_bytes_are_answered_4xx_or_closed(gateway: Gateway) -> None:
    chance = random.Random(11)
    good = upgrade(fields=[("Cookie", "a=b"), ("Origin", "http://127.0.0.1")])

    async def outcome(number: int) -> int:
        if number % 2:
            data = chance.randbytes(chance.randrange(1, 3000))
        else:  # a good handshake with some bytes changed
            changed = bytearray(good)
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            data = bytes(changed)
        async with Raw(gateway.port) as raw:
            await raw.send(data)
            raw.finish()
            answer = await raw.receive_all()
        return parsed(answer).status if answer else 0

    statuses = set(await gather_bounded(20, *(outcome(number) for number in range(300))))
    await is_well(gateway)
    assert 400 in statuses
    assert not {status for status in statuses if status >= 500}, statuses


async def test_a_megabyte_of_header_is_431_or_closed(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        try:
            await raw.send(head("GET", "/", fields=[("X", "a" * 1_000_000)]))
            answer = await raw.receive_all()
        except (ConnectionResetError, BrokenPipeError):
            answer = b""  # it is not read for ever
    if answer:
        assert parsed(answer).status == 431
    await is_well(gateway)


# Time


async def test_half_a_head_is_408_at_the_header_timeout(gateway: Gateway) -> None:
    started = time.monotonic()
    answer = await exchange(gateway.port, upgrade()[:-3])
    took = time.monotonic() - started
    assert answer.status == 408
    assert HEADER_TIMEOUT * 0.9 < took < HEADER_TIMEOUT * 10


async def test_a_head_that_drips_is_408_at_the_same_time(gateway: Gateway) -> None:
    started = time.monotonic()
    async with Raw(gateway.port) as raw:
        answering = asyncio.create_task(raw.receive_all())
        for byte in upgrade():  # it would take some 10 s
            if answering.done():
                break
            await raw.send(bytes([byte]))
            await asyncio.wait([answering], timeout=0.05)
        answer = parsed(await answering)
    assert answer.status == 408
    assert time.monotonic() - started < HEADER_TIMEOUT * 5


async def test_who_sends_nothing_is_closed_without_a_word(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        assert await raw.receive_all() == b""


async def test_a_head_that_ends_half_way_is_400_and_not_waited_for(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade()[:-3])
        raw.finish()
        assert (await raw.answer()).status == 400  # after the header timeout it would be 408


async def test_half_open_clients_delay_nobody(gateway: Gateway) -> None:
    slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(200)]
    try:
        for sock in slow:
            sock.sendall(upgrade()[:40])
        await is_well(gateway)
    finally:
        for sock in slow:
            sock.close()


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1",  # another port is another origin
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}@evil.example",
        "http://localhost:{port}",
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example:8443",
        "",
    ],
)
async def test_a_page_of_another_origin_is_403(gateway: Gateway, origin: str) -> None:
    fields = [("Origin", origin.format(port=gateway.port))]
    answer = await exchange(gateway.port, upgrade(host=f"127.0.0.1:{gateway.port}", fields=fields))
    assert (answer.status, answer.cookie) == (403, None)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{port}", "https://app.example"])
async def test_an_own_page_and_one_of_an_allowed_origin_may_connect(gateway: Gateway, origin: str) -> None:
    async with Client(gateway.ws_url, headers={"Origin": origin.format(port=gateway.port)}) as client:
        await client.who()


async def test_a_client_that_is_no_browser_may_connect(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade())
        await raw.opened()


# Proxies


async def who(port: int, data: bytes, *, source: str = "127.0.0.1", cut: int = 0) -> dict[str, Any]:
    """What the probe says to a client that begins with `data`, sent in two pieces if `cut` is given."""
    async with Raw(port, source=source) as raw:
        for piece in (data[:cut], data[cut:]):
            if piece:
                await raw.send(piece)
                await asyncio.sleep(0)
        await raw.opened()
        await raw.send(frame({"do": "who"}))
        answer = await raw.next_frame()
    assert answer is not None
    facts: dict[str, Any] = json.loads(bytes(answer.data))
    return facts


def proxied(text: str) -> bytes:
    return f"PROXY {text}\r\n".encode() + upgrade()


def proxied_v2(command: int, family: int, addresses: bytes) -> bytes:
    return V2 + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses)) + addresses + upgrade()


IPV4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 5555, 80)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 5555, 80)


@pytest.mark.parametrize(
    ("data", "client"),
    [
        (proxied("TCP4 203.0.113.7 127.0.0.1 5555 80"), "203.0.113.7"),
        (proxied("TCP6 2001:db8::7 ::1 5555 80"), "2001:db8::7"),
        (proxied("UNKNOWN"), PROXY),
        (proxied_v2(1, 0x11, IPV4), "203.0.113.7"),
        (proxied_v2(1, 0x11, IPV4 + b"\x04\0\2ab"), "203.0.113.7"),  # with a TLV behind
        (proxied_v2(1, 0x21, IPV6), "2001:db8::7"),
        (proxied_v2(0, 0x00, b""), PROXY),  # LOCAL: the proxy's own check
        (upgrade(), PROXY),  # none at all
        (upgrade(fields=[("X-Forwarded-For", "198.51.100.1, 203.0.113.7")]), "203.0.113.7"),
    ],
)
async def test_a_trusted_proxy_says_who_the_client_is(gateway: Gateway, data: bytes, client: str) -> None:
    assert (await who(gateway.port, data, source=PROXY))["client"] == client


@pytest.mark.parametrize("data", [proxied("TCP4 203.0.113.7 127.0.0.1 5555 80"), proxied_v2(1, 0x11, IPV4)])
async def test_a_proxy_header_may_be_cut_anywhere(gateway: Gateway, data: bytes) -> None:
    cuts = range(1, len(data) - len(upgrade()) + 5)
    answers = await gather_bounded(20, *(who(gateway.port, data, source=PROXY, cut=cut) for cut in cuts))
    assert {answer["client"] for answer in answers} == {"203.0.113.7"}


async def test_a_strangers_word_about_the_client_counts_nothing(gateway: Gateway) -> None:
    fields = [("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=203.0.113.7"), ("X-Real-IP", "203.0.113.7")]
    assert (await who(gateway.port, upgrade(fields=fields)))["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    "data",
    [
        proxied("TCP4 203.0.113.700 127.0.0.1 5555 80"),
        proxied("TCP9 203.0.113.7 127.0.0.1 5555 80"),
        b"PROXY " + b"a" * 200,
        V2 + b"\x31\x11\0\x0c" + bytes(12) + upgrade(),  # version 3
        V2 + b"\x21\x11\0\x02ab" + upgrade(),  # too short for its family
        proxied("TCP4 203.0.113.7 127.0.0.1 5555 80")[: -len(upgrade())] + proxied("UNKNOWN"),  # two of them
    ],
)
async def test_a_trusted_proxys_broken_header_is_refused(gateway: Gateway, data: bytes) -> None:
    async with Raw(gateway.port, source=PROXY) as raw:
        await raw.send(data)
        answer = await raw.receive_all()
    assert answer == b"" or parsed(answer).status == 400
    await is_well(gateway)
