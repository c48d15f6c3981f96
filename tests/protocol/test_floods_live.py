"""Floods by a client that never reads: it is read no more, and costs neither memory nor anybody else's time.

One worker, so that whoever must not notice anything is on the same event loop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from client_frames import fragment
from onlookers import MAX_GROWTH, MIB, PROBE, Memory, bystander
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Raw, frame, upgrade
from websockets.frames import Opcode

TEXT, CONT = Opcode.TEXT, Opcode.CONT

FLOOD_BYTES = 20 * MIB
FLOOD_SECONDS = 1.5
BLOCKED_ANSWERS = 500
"""Nothing of a flood is taken for as long as another client gets so many answers: it is not read any more."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(PROBE, workers=1) as gateway:
        yield gateway
        log = whole_log(gateway)
        assert "Traceback" not in log
        assert "ERROR" not in log


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
    memory = Memory(gateway)
    sent = idle = 0
    async with bystander(gateway, asks_on=False) as other, Raw(gateway.port, receive_buffer=4096) as raw:
        await raw.send(upgrade())
        await raw.opened()
        until = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < until and sent < FLOOD_BYTES and idle < BLOCKED_ANSWERS:
            taken = raw.send_nowait(data[sent % len(data) :])
            sent += taken
            idle = 0 if taken else idle + 1
            await other.ask()
    print(f"{flood}: {sent / MIB:.1f} MiB sent, {memory.growth / MIB:.1f} MiB more memory")
    assert sent > len(data)
    assert memory.growth < MAX_GROWTH
