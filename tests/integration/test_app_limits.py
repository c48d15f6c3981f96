"""The limits of a connection, and what is negotiated for it: subprotocol, compression, sizes, times."""

import asyncio
import secrets
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import DEADLINE
from support.closes import close_of
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Raw, upgrade
from websockets.asyncio.client import connect
from websockets.frames import Opcode
from websockets.typing import Subprotocol

RULES = Path(__file__).parent / "apps" / "rules.py"


@pytest.fixture(scope="module")
def strict() -> Iterator[Gateway]:
    """Short times and small messages, so that each limit is met; compression and subprotocols."""
    options = ["ping_interval=1", "ping_timeout=1", "max_message=10000", "compression=true"]
    options += ["outbox_seconds=1", f"outbox_bytes={1 << 30}"]
    with Gateway(f"{RULES}:speaking", *(word for text in options for word in ("--set", text)), workers=2) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


def speaker(strict: Gateway, path: str = "", *, compression: str | None = None) -> connect:
    """A client of the strict gateway's application."""
    subprotocols = [Subprotocol("chat.v1")]
    return connect(strict.ws_url + path, subprotocols=subprotocols, compression=compression, proxy=None)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["chat.v1", "chat.v2"], "chat.v2"), (["x", "chat.v1"], "chat.v1")],
)
async def test_the_applications_preferred_subprotocol_is_chosen(
    strict: Gateway, offered: list[str], chosen: str
) -> None:
    async with connect(strict.ws_url, subprotocols=[Subprotocol(name) for name in offered], proxy=None) as connection:
        assert connection.subprotocol == chosen
        assert await connection.recv() == f"subprotocol: {chosen}"


async def test_a_client_that_speaks_none_of_the_subprotocols_is_served_without_one(strict: Gateway) -> None:
    for fields in ([], [("Sec-WebSocket-Protocol", "chat.v3")]):
        async with Raw(strict.port) as raw:
            await raw.send(upgrade(fields=fields))
            assert (await raw.opened()).get("Sec-WebSocket-Protocol") is None
            hello = await raw.next_frame()
        assert hello is not None
        assert bytes(hello.data) == b"subprotocol: None"


async def test_a_message_over_max_message_closes_with_1009(strict: Gateway) -> None:
    for compression in (None, "deflate"):  # compressed, it has some 30 bytes
        async with speaker(strict, compression=compression) as connection:
            await connection.recv()
            await connection.send("x" * 10_000)
            assert await connection.recv() == "x" * 10_000
            await connection.send("x" * 10_001)
            assert (await close_of(connection))[0] == 1009


async def test_a_broadcast_is_compressed_for_those_who_negotiated_it_only(strict: Gateway) -> None:
    room = f"/room/{secrets.token_hex(4)}"
    subprotocol = ("Sec-WebSocket-Protocol", "chat.v1")
    deflate = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    text = "all the same " * 500
    async with Raw(strict.port) as plain, Raw(strict.port) as small:
        for raw, fields in ((plain, [subprotocol]), (small, [subprotocol, deflate])):
            await raw.send(upgrade(room, fields=fields))
            answer = await raw.opened()
            joined = await raw.next_frame()
            assert joined is not None
        extensions = answer.get("Sec-WebSocket-Extensions") or ""
        assert extensions.startswith("permessage-deflate")
        assert "server_no_context_takeover" in extensions
        # Twice, to see that no state of the compressor is carried over.
        async with speaker(strict, room, compression="deflate") as publisher:
            assert publisher.protocol.extensions
            assert await publisher.recv() == "joined"
            for _ in range(2):
                await publisher.send(text)
                assert await publisher.recv() == text
        for _ in range(2):
            one, other = await plain.next_frame(), await small.next_frame()
            assert one is not None
            assert other is not None
            assert (one.rsv1, bytes(one.data)) == (False, text.encode())
            assert other.rsv1
            assert len(other.data) < len(text) / 10
            assert zlib.decompressobj(wbits=-15).decompress(bytes(other.data) + b"\0\0\xff\xff") == text.encode()


async def test_a_client_that_answers_no_ping_is_ended_and_one_that_does_is_not(strict: Gateway) -> None:
    async with speaker(strict) as alive, Raw(strict.port) as dead:
        await alive.recv()
        await dead.send(upgrade(fields=[("Sec-WebSocket-Protocol", "chat.v1")]))
        await dead.opened()
        opened_at = time.monotonic()
        seen = []
        while (event := await dead.next_frame()) is not None:
            seen.append(event.opcode)
        took = time.monotonic() - opened_at
        await alive.send("still here")
        assert await alive.recv() == "still here"
    assert seen == [Opcode.TEXT, Opcode.PING]
    assert took < 15


async def test_a_client_that_leaves_messages_unread_for_too_long_is_closed_with_1013(strict: Gateway) -> None:
    room = f"/room/{secrets.token_hex(4)}"
    async with Raw(strict.port, receive_buffer=4096) as raw, speaker(strict, room) as publisher:
        await raw.send(upgrade(room, fields=[("Sec-WebSocket-Protocol", "chat.v1")]))
        assert await publisher.recv() == "joined"
        for number in range(1000):  # 10 MB: more than the kernel holds
            message = f"{number} ".ljust(10_000, "x")
            await publisher.send(message)
            assert await publisher.recv() == message
        async with asyncio.timeout(DEADLINE):
            assert await publisher.recv() == "left 1013 slow consumer"
