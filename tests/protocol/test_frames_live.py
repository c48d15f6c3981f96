"""Broken, hostile and endless frames: the one who sends them is closed, in time and in bounds; nobody else notices.

One worker, so that whoever must not notice anything is on the same event loop.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.client import Client, gather_bounded
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Raw, frame, upgrade
from support.waiting import wait_until
from websockets.frames import Close, Frame, Opcode

PROBE = f"{Path(__file__).parents[1] / 'integration' / 'apps' / 'probe.py'}:app"

MIB = 1 << 20
MAX_MESSAGE = MIB
MAX_FRAGMENTS = 4096

TCP_SECONDS = 5.0
"""After a close frame the connection ends within this time (RFC 6455 §7.1.1 wants it soon)."""
TCP_DEADLINE = 8.0
"""The same, on a machine that is busy with other tests."""

FLOOD_BYTES = 20 * MIB
FLOOD_SECONDS = 4.0
MAX_GROWTH = 16 * MIB

DEFLATE = ("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(PROBE, "--set", "compression=true", workers=1) as gateway:
        yield gateway
        log = whole_log(gateway)
        assert "Traceback" not in log
        assert "ERROR" not in log


class Bystander:
    """A client that asks and is answered, all the time; `worst` is its longest wait in seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.answers = 0
        self.worst = 0.0

    async def ask(self) -> None:
        """One question, answered rightly."""
        started = time.monotonic()
        assert await self._client.ask(number=self.answers) == {"number": self.answers}
        self.answers += 1
        self.worst = max(self.worst, time.monotonic() - started)

    async def ask_on(self) -> None:
        """Ask until cancelled, one question behind the other."""
        while True:
            await self.ask()


@asynccontextmanager
async def bystander(gateway: Gateway, *, asks_on: bool = True) -> AsyncIterator[Bystander]:
    """Somebody else, who is served well for as long as the context lasts."""
    async with Client(gateway.ws_url) as client:
        other = Bystander(client)
        await other.ask()
        asking = asyncio.create_task(other.ask_on()) if asks_on else None
        yield other
        if asking is not None:
            assert not asking.done(), asking.exception()
            asking.cancel()
    print(f"bystander: {other.answers} answers, longest wait {other.worst * 1000:.0f} ms")
    assert other.answers > 3
    assert other.worst < 5


def worker_bytes(gateway: Gateway) -> int:
    """The worker's resident memory."""
    status = Path(f"/proc/{gateway.worker_pids()[0]}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def worker_sockets(gateway: Gateway) -> int:
    """How many descriptors the worker has open."""
    return len(list(Path(f"/proc/{gateway.worker_pids()[0]}/fd").iterdir()))


# Frames as they should not be


def raw_frame(first: int, payload: bytes = b"", *, length: int | None = None, width: int | None = None) -> bytes:
    """A masked frame with `first` as its first byte, `length` as its announced size, in 0, 2 or 8 `width` bytes."""
    length = len(payload) if length is None else length
    if width is None:
        width = 0 if length < 126 else 2 if length < 65536 else 8
    second = {0: length, 2: 126, 8: 127}[width]
    extended = length.to_bytes(width, "big") if width else b""
    return bytes([first, 0x80 | second]) + extended + bytes(4) + payload


def fragment(opcode: Opcode, payload: bytes = b"", *, fin: bool = False) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def close_frame(payload: bytes) -> bytes:
    return raw_frame(0x88, payload)


def deflated(payload: bytes) -> bytes:
    """`payload` as one compressed text frame."""
    compressor = zlib.compressobj(wbits=-15)
    return raw_frame(0xC1, (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4])


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


async def end_of(gateway: Gateway, data: bytes, *fields: tuple[str, str]) -> tuple[list[int], float]:
    """Send `data` on a WebSocket: the codes of the close frames that come, and the seconds until TCP has ended.

    The client answers no close frame and does not close: it is the gateway that has to.
    """
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade(fields=fields))
        await raw.opened()
        started = time.monotonic()
        codes = []
        try:
            await raw.send(data)
            while (event := await raw.next_frame()) is not None:
                if event.opcode is Opcode.CLOSE:
                    codes.append(Close.parse(bytes(event.data)).code)
            async with asyncio.timeout(TCP_DEADLINE * 2):
                while True:  # what still comes is read and dropped, until nobody is there to read it
                    await raw.send(b"x")
                    await asyncio.sleep(0.05)
        except (ConnectionResetError, BrokenPipeError):
            return codes, time.monotonic() - started


async def each_ends(gateway: Gateway, table: dict[str, tuple[bytes, int]], *fields: tuple[str, str]) -> None:
    """Every row's client gets its close code and its end, and the bystander does not notice."""
    before = worker_sockets(gateway)
    async with bystander(gateway):
        ends = await gather_bounded(100, *(end_of(gateway, data, *fields) for data, _ in table.values()))
        await wait_until(lambda: worker_sockets(gateway) <= before + 1)
    found = {name: codes for name, (codes, _) in zip(table, ends, strict=True)}
    assert found == {name: [code] for name, (_, code) in table.items()}
    slow = {name: seconds for name, (_, seconds) in zip(table, ends, strict=True) if seconds > TCP_DEADLINE}
    assert slow == {}


async def test_broken_frames_end_their_connection_with_their_code(gateway: Gateway) -> None:
    await each_ends(gateway, BROKEN)


async def test_broken_compression_ends_its_connection_and_takes_no_memory(gateway: Gateway) -> None:
    before = worker_bytes(gateway)
    await each_ends(gateway, BROKEN_DEFLATE, DEFLATE)
    assert worker_bytes(gateway) - before < MAX_GROWTH


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


# Floods by a client that never reads


def echoed_in_fragments(size: int) -> bytes:
    """A message that is answered with as much, one byte a fragment."""
    text = json.dumps("x" * (size - 2)).encode()
    parts = [fragment(CONT if at else TEXT, text[at : at + 1], fin=at == size - 1) for at in range(size)]
    return b"".join(parts)


FLOODS = {
    "pings": frame(b"x" * 125, Opcode.PING) * 500,
    "empty pings": frame(b"", Opcode.PING) * 10_000,
    "pongs": frame(b"x" * 125, Opcode.PONG) * 500,
    "tiny fragments": echoed_in_fragments(4000) * 2,
    "empty fragments": (fragment(TEXT, b"1") + fragment(CONT) * 4000 + fragment(CONT, fin=True)) * 2,
    "tiny messages": frame(b"1") * 9000,
    "messages": frame(b'"' + b"x" * 60_000 + b'"'),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_by_a_client_that_never_reads_takes_no_memory(gateway: Gateway, flood: str) -> None:
    data = FLOODS[flood]
    before = most = worker_bytes(gateway)
    sent = 0
    async with bystander(gateway, asks_on=False) as other, Raw(gateway.port, receive_buffer=4096) as raw:
        await raw.send(upgrade())
        await raw.opened()
        until = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < until and sent < FLOOD_BYTES:
            # What the kernel does not take waits for the worker, who does not read: then only the other one goes on.
            sent += raw.send_nowait(data[sent % len(data) :])
            await other.ask()
            most = max(most, worker_bytes(gateway))
    print(f"{flood}: {sent / MIB:.1f} MiB sent, {(most - before) / MIB:.1f} MiB more memory")
    assert sent > len(data)
    assert most - before < MAX_GROWTH
