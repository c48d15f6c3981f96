"""A worker that dies or stalls while connections are on their way to it loses none that it had not taken."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import Gateway
from support.raw import Raw, frame, upgrade
from support.waiting import wait_until

PROBE = f"{Path(__file__).parents[1] / 'apps' / 'probe.py'}:app"
SLOW_START = f"{Path(__file__).parents[1] / 'apps' / 'slow_start.py'}:app"
IN_FLIGHT = 200


async def asked_who(raw: Raw, port: int, cookie: str) -> None:
    """Send a handshake with a cookie, and the first question in the same segment."""
    request = upgrade("/", host=f"127.0.0.1:{port}", fields=[("Cookie", cookie)])
    await raw.send(request + frame({"do": "who"}))


async def told_who(raw: Raw) -> tuple[dict, str | None]:
    """The answer to the question, and the cookie that came with the handshake."""
    opened = await raw.opened()
    answer = await raw.next_frame()
    assert answer is not None
    return json.loads(bytes(answer.data)), opened.cookie


async def offered_while_stopped(gateway: Gateway, client: Client, slot: int) -> list[Raw]:
    """`IN_FLIGHT` connections that the primary has offered to `slot`'s worker, which does not run."""
    assert client.cookie is not None
    os.kill(gateway.worker_pids()[slot], signal.SIGSTOP)
    routed = gateway.log.count("reason=cookie")
    raws = [await Raw(gateway.port).__aenter__() for _ in range(IN_FLIGHT)]
    for raw in raws:
        await asked_who(raw, gateway.port, client.cookie)
    await wait_until(lambda: gateway.log.count("reason=cookie") == routed + IN_FLIGHT)
    return raws


async def closed(raws: list[Raw]) -> None:
    for raw in raws:
        await raw.__aexit__(None, None, None)


async def test_200_connections_in_flight_are_served_by_the_slots_next_worker() -> None:
    with Gateway(PROBE, "--log-level", "debug", workers=2) as gateway:
        async with Client(gateway.ws_url) as client:
            before = await client.who()
        raws = await offered_while_stopped(gateway, client, before["slot"])
        killed_at = time.monotonic()
        os.kill(before["pid"], signal.SIGKILL)
        answers = await asyncio.gather(*(told_who(raw) for raw in raws))
        print(f"{IN_FLIGHT} in flight at the death: all served {time.monotonic() - killed_at:.2f} s later")
        await closed(raws)
    assert {answer["slot"] for answer, _ in answers} == {before["slot"]}
    assert before["pid"] not in {answer["pid"] for answer, _ in answers}
    assert {answer["session"] for answer, _ in answers} == {before["session"]}
    assert {cookie for _, cookie in answers} == {None}


@pytest.mark.long
async def test_when_the_slot_stays_away_the_runner_up_serves_them_without_a_new_cookie(tmp_path: Path) -> None:
    environment = {"STARTS_IN": "3", "STARTED_FOLDER": str(tmp_path)}
    options = ["--log-level", "debug", "--set", "slot_wait=0.3"]
    with Gateway(SLOW_START, *options, workers=2, environment=environment) as gateway:
        async with Client(gateway.ws_url) as client:
            before = await client.who()
        raws = await offered_while_stopped(gateway, client, before["slot"])
        killed_at = time.monotonic()
        os.kill(before["pid"], signal.SIGKILL)
        answers = await asyncio.gather(*(told_who(raw) for raw in raws))
        print(f"{IN_FLIGHT} in flight, slot away: all served {time.monotonic() - killed_at:.2f} s later")
        await closed(raws)
        assert {answer["slot"] for answer, _ in answers} == {1 - before["slot"]}
        assert {answer["session"] for answer, _ in answers} == {before["session"]}
        assert {cookie for _, cookie in answers} == {None}

        async def is_back() -> bool:
            async with client:
                return (await client.who())["slot"] == before["slot"]

        await wait_until(is_back, seconds=20)


async def test_a_worker_that_starts_slowly_gets_no_first_visits_until_it_is_ready(tmp_path: Path) -> None:
    environment = {"STARTS_IN": "2", "STARTED_FOLDER": str(tmp_path)}
    with Gateway(SLOW_START, workers=2, environment=environment) as gateway:
        os.kill(gateway.worker_pids()[0], signal.SIGKILL)
        slots = []
        started = time.monotonic()
        while not slots or (slots[-1] == 1 and time.monotonic() - started < 20):
            asked = time.monotonic()
            async with Client(gateway.ws_url) as visitor:
                slots.append((await visitor.who())["slot"])
            waited = time.monotonic() - asked
            assert waited < 10, "a first visit waits for nobody who is not ready"
        print(f"{len(slots) - 1} first visits went to the other slot before the slow one was ready")
        assert slots[-1] == 0
        assert len(slots) > 1


@pytest.mark.alone
@pytest.mark.long
def test_of_100_000_connections_none_is_lost() -> None:
    """Each opens, gets the answer to the message in its first segment, and leaves. Waves of 50, two workers."""
    import socket

    with Gateway(PROBE, workers=2) as gateway:
        request = upgrade("/", host=f"127.0.0.1:{gateway.port}") + frame({"n": 1})
        outcomes: Counter[str] = Counter()
        started = time.monotonic()
        for _ in range(2000):
            wave = [socket.create_connection(("127.0.0.1", gateway.port), timeout=30) for _ in range(50)]
            for sock in wave:
                sock.sendall(request)
            for sock in wave:
                data = b""
                while b'{"n":1}' not in data:
                    piece = sock.recv(4096)
                    if not piece:
                        break
                    data += piece
                outcomes["served" if b'{"n":1}' in data else "lost"] += 1
                sock.close()
        print(f"{dict(outcomes)} in {time.monotonic() - started:.0f} s")
    assert outcomes == {"served": 100_000}
