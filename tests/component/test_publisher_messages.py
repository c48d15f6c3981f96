"""What a publisher sends reaches the workers on the same store: each test for the blocking one and for the other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import pytest
from support.publishers import KINDS, SECRET, Listener
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.bridge.addresses import DIRECT, user_address
from stickygw.bridge.base import Publication
from stickygw.config.settings import Settings
from stickygw.publisher import Publisher
from stickygw.wire.envelope import CLOSE
from stickygw.wire.prepared import BINARY, TEXT

ADA = user_address("ada")

NewPublisher = Callable[..., Any]


@pytest.fixture(params=KINDS)
async def new_publisher(
    request: pytest.FixtureRequest, valkey: ValkeyServer, prefix: str
) -> AsyncIterator[NewPublisher]:
    made: list[Any] = []

    def make(**options: Any) -> Any:
        made.append(request.param(valkey.url, **({"secret": SECRET, "prefix": prefix} | options)))
        return made[-1]

    yield make
    for publisher in made:
        await publisher.close()


@pytest.fixture
async def worker(valkey: ValkeyServer, prefix: str) -> AsyncIterator[Listener]:
    """It hears the rooms a and b, the user ada, and what is meant for sessions and connections."""
    worker = Listener(valkey.url, prefix, SECRET)
    await worker.hear("a", "b", ADA, DIRECT)
    yield worker
    await worker.bridge.stop()


async def test_a_room_gets_text_and_bytes_in_order(new_publisher: NewPublisher, worker: Listener) -> None:
    publisher = new_publisher()
    await publisher.publish("a", "hello é")
    await publisher.publish("a", b"\x00\xff")
    await wait_until(lambda: len(worker.received) == 2)
    assert worker.received == [
        ("a", Publication(TEXT, "hello é".encode())),
        ("a", Publication(BINARY, b"\x00\xff")),
    ]
    assert worker.gaps == []


async def test_copies_in_several_rooms_belong_to_one_group(new_publisher: NewPublisher, worker: Listener) -> None:
    publisher = new_publisher()
    await publisher.publish(["a", "b", "a"], "both")
    await publisher.publish(["a", "b"], "again")
    await wait_until(lambda: len(worker.received) == 4)
    assert [address for address, _ in worker.received] == ["a", "b", "a", "b"]
    groups = [publication.group for _, publication in worker.received]
    assert groups[0] == groups[1] != groups[2] == groups[3]


async def test_no_room_is_no_message(new_publisher: NewPublisher) -> None:
    await new_publisher().publish([], "nobody")


async def test_users_and_sessions_are_named(new_publisher: NewPublisher, worker: Listener) -> None:
    publisher = new_publisher()
    await publisher.send_to_user("ada", "to a user")
    await publisher.send_to_session("5e55", "to a session")
    await wait_until(lambda: len(worker.received) == 2)
    assert set(worker.received) == {
        (ADA, Publication(TEXT, b"to a user")),
        (DIRECT, Publication(TEXT, b"to a session", "session:5e55")),
    }


async def test_an_order_to_close_has_a_close_frames_payload(new_publisher: NewPublisher, worker: Listener) -> None:
    publisher = new_publisher()
    await publisher.disconnect(session="5e55", code=4401, reason="bye")
    await publisher.disconnect(connection="c0")
    await publisher.disconnect(user="ada")
    await wait_until(lambda: len(worker.received) == 3)
    policy = (1008).to_bytes(2, "big")
    assert set(worker.received) == {
        (DIRECT, Publication(CLOSE, (4401).to_bytes(2, "big") + b"bye", "session:5e55")),
        (DIRECT, Publication(CLOSE, policy, "connection:c0")),
        (ADA, Publication(CLOSE, policy)),
    }


async def test_codecs_write_what_the_app_of_that_codec_writes(new_publisher: NewPublisher, worker: Listener) -> None:
    value = {"text": "é", "numbers": [1, 2]}
    await new_publisher(codec="json").publish("a", value)
    await new_publisher(codec="msgpack").publish("b", value)
    await wait_until(lambda: len(worker.received) == 2)
    received = dict(worker.received)
    assert received["a"] == Publication(TEXT, '{"text":"é","numbers":[1,2]}'.encode())
    assert received["b"] == Publication(BINARY, msgpack.packb(value))


async def test_calls_at_once_go_out_one_after_the_other_and_none_is_dropped(
    new_publisher: NewPublisher, worker: Listener
) -> None:
    publisher = new_publisher(timeout=30.0)
    await asyncio.gather(*(publisher.publish("a", str(number)) for number in range(200)))
    await wait_until(lambda: len(worker.received) == 200)
    assert sorted(map(int, worker.payloads)) == list(range(200))
    assert worker.counters.total("bridge_old") == 0
    assert worker.gaps == []


async def test_two_publishers_are_two_senders(new_publisher: NewPublisher, worker: Listener) -> None:
    for publisher in (new_publisher(), new_publisher()):
        await publisher.publish("a", "first")
    await wait_until(lambda: len(worker.received) == 2)


async def test_used_as_a_context_it_is_closed_and_can_be_used_again(
    new_publisher: NewPublisher, worker: Listener
) -> None:
    publisher = new_publisher()
    await publisher.publish("a", "1")
    await publisher.close()
    await publisher.close()
    await publisher.publish("a", "2")
    await wait_until(lambda: worker.payloads == [b"1", b"2"])


async def test_what_another_secret_or_none_has_signed_is_dropped_and_counted(
    new_publisher: NewPublisher, worker: Listener
) -> None:
    await new_publisher(secret="another secret that is as long as the first").publish("a", "forged")
    await new_publisher(secret=None).publish("a", "unsigned")
    await new_publisher(secret=SECRET.encode()).publish("a", "signed")
    await wait_until(lambda: worker.payloads == [b"signed"])
    assert worker.counters.total("bridge_foreign") == 2


@pytest.mark.parametrize(
    "written", [f"{SECRET},{'o' * 40}", f"  {SECRET} , {'o' * 40}", f",{SECRET}", json.dumps([SECRET, "o" * 40])]
)
async def test_of_several_secrets_it_signs_with_the_one_that_gateways_sign_with(
    new_publisher: NewPublisher, valkey: ValkeyServer, prefix: str, written: str
) -> None:
    worker = Listener(
        valkey.url,
        prefix,
        *(each.get_secret_value() for each in Settings.model_validate({"secret": written}).secret[:1]),
    )
    await worker.hear("a")
    await new_publisher(secret=written).publish("a", "signed")
    await wait_until(lambda: worker.payloads == [b"signed"])
    await worker.bridge.stop()


async def test_bytes_are_one_secret_commas_and_all(
    new_publisher: NewPublisher, valkey: ValkeyServer, prefix: str
) -> None:
    worker = Listener(valkey.url, prefix, f"{SECRET},more")
    await worker.hear("a")
    await new_publisher(secret=f"{SECRET},more".encode()).publish("a", "signed")
    await wait_until(lambda: worker.payloads == [b"signed"])
    await worker.bridge.stop()


async def test_a_gateway_that_signs_nothing_takes_all(
    new_publisher: NewPublisher, valkey: ValkeyServer, prefix: str
) -> None:
    worker = Listener(valkey.url, prefix)
    await worker.hear("a")
    await new_publisher(secret=None).publish("a", "unsigned")
    await new_publisher().publish("a", "signed")
    await wait_until(lambda: sorted(worker.payloads) == [b"signed", b"unsigned"])
    await worker.bridge.stop()


async def test_a_forked_process_is_a_sender_of_its_own(valkey: ValkeyServer, prefix: str, worker: Listener) -> None:
    program = f"""
import os
from stickygw.publisher import Publisher
publisher = Publisher({valkey.url!r}, secret={SECRET!r}, prefix={prefix!r})
publisher.publish("a", "parent")
child = os.fork()
publisher.publish("a", "child" if child == 0 else "parent again")
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=True, timeout=30)
    await wait_until(lambda: sorted(worker.payloads) == [b"child", b"parent", b"parent again"])
    assert worker.counters.total("bridge_old") == 0


def test_it_loads_no_event_loop_server_or_settings() -> None:
    code = "import stickygw.publisher, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"uvloop", "uvicorn", "websockets", "pydantic", "click", "rich", "stickygw.worker"}
    assert Publisher.__module__ in loaded
