"""Broken and hostile frames: the one who sends them is closed, in time and in bounds; nobody else notices.

One worker, so that whoever must not notice anything is on the same event loop.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator

import pytest
from client_frames import close_frame, deflated, fragment, raw_frame
from onlookers import MAX_GROWTH, MIB, PROBE, Memory, bystander, client_sockets
from support.client import gather_bounded
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Raw, frame, upgrade
from support.waiting import wait_until
from websockets.frames import Close, Opcode

MAX_MESSAGE = MIB
MAX_FRAGMENTS = 4096

TCP_DEADLINE = 8.0
"""The connection ends 5 s after the close frame at the latest; here is a busy machine's share."""

DEFLATE = ("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(PROBE, "--set", "compression=true", workers=1) as gateway:
        yield gateway
        log = whole_log(gateway)
        assert "Traceback" not in log
        assert "ERROR" not in log


# Frames as they should not be


BOMB = zlib.compressobj(9, wbits=-15)
BOMB_DATA = (b"".join(BOMB.compress(bytes(MIB)) for _ in range(100)) + BOMB.flush(zlib.Z_SYNC_FLUSH))[:-4]
"""100 MiB of zeros in 100 KB."""

TEXT, CONT, BINARY = Opcode.TEXT, Opcode.CONT, Opcode.BINARY

BROKEN: dict[str, tuple[bytes, int]] = {
    # RFC 6455 §5.1, §5.2
    "not masked": (b"\x81\x02{}", 1002),
    "a control frame that is not masked": (b"\x89\x00", 1002),
    "RSV1 without an extension": (raw_frame(0xC1, b"{}"), 1002),
    "RSV2": (raw_frame(0xA1, b"{}"), 1002),
    "RSV3": (raw_frame(0x91, b"{}"), 1002),
    "all of RSV": (raw_frame(0xF1, b"{}"), 1002),
    "RSV1 in a ping": (raw_frame(0xC9, b"x"), 1002),
    **{f"opcode {opcode:#x}": (raw_frame(0x80 | opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "zeros": (bytes(100), 1002),
    "a second handshake": (upgrade(), 1002),
    "TLS": (bytes.fromhex("16030100c8010000c40303"), 1002),
    # §5.4
    "nothing to continue": (fragment(CONT, b"{}", fin=True), 1002),
    "nothing to continue yet": (fragment(CONT, b"{}"), 1002),
    "a text within a message": (fragment(TEXT, b"{") + fragment(TEXT, b"}", fin=True), 1002),
    "a binary within a message": (fragment(TEXT, b"{") + fragment(BINARY, b"}"), 1002),
    "a continuation after the end": (fragment(TEXT, b"1") + fragment(CONT, fin=True) + fragment(CONT), 1002),
    # §5.5
    "a ping of 126 bytes": (raw_frame(0x89, bytes(126)), 1002),
    "a pong of 126 bytes": (raw_frame(0x8A, bytes(126)), 1002),
    "a close of 126 bytes": (close_frame(b"\x03\xe8" + b"x" * 124), 1002),
    "a ping in fragments": (raw_frame(0x09, b"x"), 1002),
    "a close in fragments": (raw_frame(0x08, b"\x03\xe8"), 1002),
    "a close of one byte": (close_frame(b"\x03"), 1002),
    **{
        f"a close with {code}": (close_frame(code.to_bytes(2, "big")), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "a close within a message": (fragment(TEXT, b"{") + close_frame(b"\x03\xe8"), 1002),
    # §8.1
    "not UTF-8": (frame(b"\xff\xfe"), 1007),
    "an overlong slash": (frame(b"\xc0\xaf"), 1007),
    "a surrogate in UTF-8": (frame(b"\xed\xa0\x80"), 1007),
    "beyond Unicode": (frame(b"\xf4\x90\x80\x80"), 1007),
    "half a character": (frame(b'"\xe2\x82"'), 1007),
    "a character broken between fragments": (fragment(TEXT, b"\xe2\x82") + fragment(CONT, b"(", fin=True), 1007),
    "half a character at the end of fragments": (fragment(TEXT, b"1") + fragment(CONT, b"\xe2\x82", fin=True), 1007),
    "a close whose reason is not UTF-8": (close_frame(b"\x03\xe8\xff"), 1007),
    "a large message that is not UTF-8": (frame(b"x" * 70_000 + b"\xff"), 1007),
    # Sizes, by their headers alone
    "a byte too many": (raw_frame(0x81, length=MAX_MESSAGE + 1), 1009),
    "4 GiB": (raw_frame(0x82, length=1 << 32), 1009),
    "CVE-2016-10542 (ws): 2**62 bytes": (raw_frame(0x82, length=1 << 62), 1009),
    "CVE-2026-1528 (undici): 2**63 bytes": (raw_frame(0x82, length=1 << 63), 1009),
    "2**64 - 1 bytes": (raw_frame(0x82, length=(1 << 64) - 1), 1009),
    "a ping of 2**62 bytes": (raw_frame(0x89, length=1 << 62), 1009),
    "a byte too many in two fragments": (
        fragment(BINARY, bytes(MAX_MESSAGE - 1)) + raw_frame(0x80, length=2),
        1009,
    ),
    "CVE-2026-48779 (ws): 4097 fragments": (
        fragment(TEXT) + fragment(CONT) * (MAX_FRAGMENTS - 1) + fragment(CONT, fin=True),
        1009,
    ),
    "fragments without end": (fragment(TEXT, b"[") + fragment(CONT, b"1") * MAX_FRAGMENTS, 1009),
    "fragments without end, and pings between": (
        fragment(TEXT, b"[") + (fragment(CONT, b"1") + frame(b"", Opcode.PING)) * MAX_FRAGMENTS,
        1009,
    ),
    # Messages: whatever the codec can't read. engine.io's and socket.io's own parsers ended their process.
    "not JSON": (frame(b"{"), 1007),
    "no JSON at all": (frame(b""), 1007),
    "JSON in UTF-16": (frame("{}".encode("utf-16"), Opcode.BINARY), 1007),
    "nested without end": (frame(b"[" * 100_000), 1007),
    "no number": (frame(b"NaN"), 1007),
    "an infinite number": (frame(b"-Infinity"), 1007),
    "a number too large": (frame(b'{"a": 1e999}'), 1007),
    "a whole number too long": (frame(b"1" * 5000), 1007),
    "half a surrogate pair": (frame(b'"\\ud800"'), 1007),
    "half a surrogate pair as a name": (frame(b'{"\\udfff": 1}'), 1007),
    "CVE-2022-21676 (engine.io): an unknown packet": (frame(b"\x00\xff", Opcode.BINARY), 1007),
    "CVE-2020-36049 (socket.io-parser): digits without end": (frame(b"5" + b"9" * 100_000), 1007),
    "CVE-2022-2421 (socket.io-parser): an attachment's place": (
        frame(b'51-["a",{"_placeholder":true,"num":"splice"}]'),
        1007,
    ),
    "CVE-2023-32695 (socket.io-parser): an event without a name": (frame(b'2[{"toString":"a"}]'), 1007),
    "CVE-2024-38355 (socket.io): an event that is called error": (frame(b'42["error"]'), 1007),
    "CVE-2026-33151 (socket.io-parser): many attachments": (frame(b'5999999999-["a"]'), 1007),
}

BROKEN_DEFLATE: dict[str, tuple[bytes, int]] = {
    "not deflated": (raw_frame(0xC1, b"\xff" * 20), 1002),
    "RSV1 in a continuation": (raw_frame(0x41, b"\x00") + raw_frame(0xC0, b"\x00"), 1002),
    "RSV1 in a ping, deflate or not": (raw_frame(0xC9, b""), 1002),
    "RSV2 beside it": (raw_frame(0xE1, b"\x02\x00"), 1002),
    "inflated, not UTF-8": (deflated(b"\xff\xfe" * 50), 1007),
    "a byte too many, inflated": (deflated(b"x" * (MAX_MESSAGE + 1)), 1009),
    "CVE-2018-1000518 (websockets), CVE-2026-1526 (undici): a bomb": (raw_frame(0xC2, BOMB_DATA), 1009),
    "a bomb in two fragments": (raw_frame(0x42, BOMB_DATA[:900]) + raw_frame(0x80, BOMB_DATA[900:]), 1009),
    "a bomb behind a full message": (
        raw_frame(0x42, deflated(b"x" * MAX_MESSAGE)[8:] + b"\0\0\xff\xff") + raw_frame(0x80, BOMB_DATA[:2000]),
        1009,
    ),
}


async def close_codes(raw: Raw, data: bytes, *fields: tuple[str, str]) -> list[int]:
    """Send `data` on a WebSocket, and read to the end of the stream: the codes of the close frames that came."""
    await raw.send(upgrade(fields=fields))
    await raw.opened()
    codes = []
    await raw.send(data)
    while (event := await raw.next_frame()) is not None:
        if event.opcode is Opcode.CLOSE:
            codes.append(Close.parse(bytes(event.data)).code)
    return codes


async def tcp_ends(raw: Raw) -> float:
    """The seconds until a client that never closes its side is cut."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(TCP_DEADLINE):
            while True:  # what it still sends is read and dropped, until nobody is there to read it
                await raw.send(b"x")
                await asyncio.sleep(0.05)
    except OSError:  # reset at last; or the deadline
        return time.monotonic() - started


async def test_broken_frames_end_their_connection_with_their_code_and_in_time(gateway: Gateway) -> None:
    before = client_sockets(gateway)

    async def end(data: bytes) -> tuple[list[int], float]:
        async with Raw(gateway.port) as raw:
            return await close_codes(raw, data), await tcp_ends(raw)

    async with bystander(gateway):
        ends = await gather_bounded(len(BROKEN), *(end(data) for data, _ in BROKEN.values()))
    assert {name: codes for name, (codes, _) in zip(BROKEN, ends, strict=True)} == expected(BROKEN)
    assert [name for name, (_, seconds) in zip(BROKEN, ends, strict=True) if seconds >= TCP_DEADLINE] == []
    print(f"TCP ended after at most {max(seconds for _, seconds in ends):.2f} s")
    await wait_until(lambda: client_sockets(gateway) <= before)


async def test_broken_compression_ends_its_connection_and_takes_no_memory(gateway: Gateway) -> None:
    async def end(data: bytes) -> list[int]:
        async with Raw(gateway.port) as raw:
            return await close_codes(raw, data, DEFLATE)

    memory = Memory(gateway)
    async with bystander(gateway):
        ends = await gather_bounded(len(BROKEN_DEFLATE), *(end(data) for data, _ in BROKEN_DEFLATE.values()))
    assert dict(zip(BROKEN_DEFLATE, ends, strict=True)) == expected(BROKEN_DEFLATE)
    print(f"{memory.growth / MIB:.1f} MiB more memory")
    assert memory.growth < MAX_GROWTH


def expected(table: dict[str, tuple[bytes, int]]) -> dict[str, list[int]]:
    return {name: [code] for name, (_, code) in table.items()}


async def test_what_is_odd_and_allowed_is_served(gateway: Gateway) -> None:
    """Each is answered with what it says, and the connection lives on."""
    whole = b'"' + b"x" * 100 + b'"'
    allowed = [
        (raw_frame(0x81, b"1", width=2), b"1"),  # a length that could be shorter (§5.2 forbids it to the sender)
        (raw_frame(0x81, b"2", width=8), b"2"),
        (raw_frame(0x82, b"3"), b"3"),
        (fragment(TEXT) * 1 + fragment(CONT) * 50 + fragment(CONT, b"4", fin=True), b"4"),
        (fragment(TEXT) + fragment(CONT) * (MAX_FRAGMENTS - 2) + fragment(CONT, b"5", fin=True), b"5"),
        (raw_frame(0x8A, b"nobody asked") + raw_frame(0x81, b"6"), b"6"),
        (b"".join(fragment(CONT if at else TEXT, whole[at : at + 1]) for at in range(102)) + fragment(CONT, fin=True),
         whole),
        (fragment(TEXT, b'"\xe2\x82') + fragment(CONT, b'\xac"', fin=True), '"€"'.encode()),
        (frame(b'"\\ud83d\\ude00"'), '"😀"'.encode()),
        (frame(b'"' + b"x" * (MAX_MESSAGE - 2) + b'"'), b'"' + b"x" * (MAX_MESSAGE - 2) + b'"'),
    ]  # fmt: skip
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade())
        await raw.opened()
        for data, expected in allowed:
            await raw.send(data)
            answer = await raw.next_frame()
            assert answer is not None
            assert (answer.opcode, bytes(answer.data)) == (Opcode.TEXT, expected)


async def test_a_close_is_answered_with_its_own_bytes(gateway: Gateway) -> None:
    """CVE-2026-45736: ws sent bytes of its memory in the reason. An empty close is answered by an empty one."""
    for payload in (b"", b"\x03\xe8", b"\x0f\xa0" + "bye €".encode(), b"\x13\x87" + b"x" * 123):
        async with Raw(gateway.port) as raw:
            await raw.send(upgrade() + close_frame(payload))
            await raw.opened()
            answer = await raw.next_frame()
            assert answer is not None
            assert (answer.opcode, bytes(answer.data)) == (Opcode.CLOSE, payload)
            assert await raw.next_frame() is None
