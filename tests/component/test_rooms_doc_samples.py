"""docs/rooms.md: each of its code samples does what the page says, and its envelope is the real one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.publishers import SECRET, Listener
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.bridge.addresses import user_address
from stickygw.testing import AppClient
from stickygw.wire.envelope import CLOSE, Envelope, EnvelopeKeys
from stickygw.wire.prepared import TEXT

PAGE = (Path(__file__).parents[2] / "docs" / "rooms.md").read_text("utf-8")
NATIVE, PUBLISHER, ASYNC_PUBLISHER, ENVELOPE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)

ORIGIN = bytes(range(8))
CHANNEL = b"stickygw:room:lobby"


def run(sample: str) -> dict[str, Any]:
    """What the sample defines."""
    names: dict[str, Any] = {}
    exec(compile(sample, "docs/rooms.md", "exec"), names)
    return names


async def test_members_hear_each_other_whisper_and_are_thrown_out() -> None:
    names = run(NATIVE)
    async with (
        AppClient(names["app"]) as client,
        client.connect("/ws/lobby/ada") as ada,
        client.connect("/ws/lobby/bob") as bob,
    ):
        lobby = names["app"].room("lobby")
        await wait_until(lambda: {member.user for member in lobby.local_members} == {"ada", "bob"})
        await ada.send({"say": "hello"})
        assert await bob.receive() == {"from": "ada", "text": "hello"}
        await bob.send({"whisper": "psst", "to": "ada"})
        assert await ada.receive() == {"from": "bob", "text": "psst"}  # and not her own hello
        await names["missed"]("lobby")
        assert await ada.receive() == await bob.receive() == {"reload": "lobby"}
        await ada.send({"kick": "bob"})
        assert await bob.wait_closed() == 4003
        assert bob.close_reason == "kicked"


@pytest.fixture
async def worker(own_valkey: ValkeyServer) -> AsyncIterator[Listener]:
    """On a store where the prefix is the default one."""
    worker = Listener(own_valkey.url, "stickygw", SECRET)
    await worker.hear("lobby", "orders", "order 7", user_address("ada"))
    yield worker
    await worker.bridge.stop()


async def test_a_task_tells_rooms_and_a_user(
    own_valkey: ValkeyServer, worker: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", own_valkey.url)
    monkeypatch.setenv("STICKYGW_SECRET", SECRET)
    names = run(PUBLISHER)
    await asyncio.to_thread(names["order_was_paid"], 7, "ada")
    names["publisher"].close()
    await wait_until(lambda: len(worker.received) == 4)
    assert [(address, publication.opcode) for address, publication in worker.received] == [
        ("orders", TEXT),
        ("order 7", TEXT),
        (user_address("ada"), TEXT),
        (user_address("ada"), CLOSE),
    ]
    assert worker.payloads[:3] == [b'{"paid":7}'] * 3


async def test_a_coroutine_announces(own_valkey: ValkeyServer, worker: Listener) -> None:
    await run(ASYNC_PUBLISHER)["announce"](own_valkey.url, SECRET, "hello")
    await wait_until(lambda: worker.payloads == [b'{"text":"hello"}'])


def test_the_envelope_of_the_page_is_what_its_code_and_ours_make() -> None:
    [shown] = re.findall(r"^```text\n([0-9a-f ]*)  signature\n([0-9a-f ]*)  body\n```$", PAGE, re.M)
    expected = bytes.fromhex("".join(shown))
    secret = b"a secret of at least thirty-two bytes"
    assert run(ENVELOPE)["envelope"](secret, CHANNEL, ORIGIN, 1, "hi") == expected
    assert EnvelopeKeys([secret]).encode(CHANNEL, Envelope(ORIGIN, 1, TEXT, b"hi")) == expected
