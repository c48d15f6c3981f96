"""An attacker plants the cookie of a session of its own in a victim: after the victim's login it is worthless."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.client import DEADLINE, Client
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Answer, exchange, head
from support.waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

FIXATION = f"{Path(__file__).parent / 'apps' / 'fixation.py'}:app"
ORDERS = pytest.mark.parametrize("order", ["name-first", "name-last"])
WORKERS = 2
KEYS = range(4)
"""So many keys, one of which at least leads to each worker."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(FIXATION, "--key", "query:k", "--first-visit", "round_robin", workers=WORKERS) as gateway:
        yield gateway
        assert "Traceback" not in whole_log(gateway)


@pytest.fixture(autouse=True)
async def on_every_worker(gateway: Gateway) -> None:
    """One session is on every worker, if it comes with all `KEYS`."""
    slots = set()
    for key in KEYS:
        async with Client(f"{gateway.ws_url}/slot?k={key}") as client:
            slots.add(await client.ask())
    assert slots == set(range(WORKERS))


async def ask(gateway: Gateway, target: str, cookie: str, *, method: str = "GET") -> Answer:
    fields = [("Cookie", cookie), ("Content-Length", "0"), ("Connection", "close")]
    answer = await exchange(gateway.port, head(method, target, fields=fields))
    assert answer.status in (200, 409), answer
    return answer


async def seen_by(gateway: Gateway, cookie: str, key: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a request and a WebSocket with this cookie are told: nothing, where the handshake is refused because the
    session has just ended."""
    client = Client(f"{gateway.ws_url}/?k={key}")
    client.cookie = cookie
    try:
        async with client:
            by_websocket = await client.ask()
    except InvalidStatus as refused:
        if refused.response.status_code != 409:
            raise
        by_websocket = {}
    return json.loads((await ask(gateway, f"/put?k={key}", cookie)).body), by_websocket


@ORDERS
async def test_a_planted_id_is_worthless_after_the_login(gateway: Gateway, order: str) -> None:
    attackers = [Client(f"{gateway.ws_url}/?k={key}") for key in KEYS]
    async with attackers[0]:
        planted = attackers[0].cookie
        assert planted is not None
        assert await attackers[0].ask(cart=["planted"]) == {"cart": ["planted"]}
        for attacker in attackers[1:]:
            attacker.cookie = planted
            await attacker.open()

        answer = await ask(gateway, f"/login/{order}?k=0", planted, method="POST")
        of_victim = {"user": "victim", "cart": ["planted"]}
        assert json.loads(answer.body) == of_victim
        victims = answer.cookie
        assert victims is not None
        assert victims.split(".")[2] != planted.split(".")[2]

        # The attacker's open WebSockets, on every worker, are closed and have seen nothing of it.
        for attacker in attackers:
            async with asyncio.timeout(DEADLINE):
                await attacker.connection.wait_closed()
            assert attacker.connection.close_code == 4401
            with pytest.raises(ConnectionClosed):
                await attacker.ask()
            await attacker.close()

    for key in KEYS:
        assert await seen_by(gateway, victims, key) == (of_victim, of_victim)
        assert await seen_by(gateway, planted, key) == ({}, {}), "who comes with it is a new visitor"

    # What the attacker writes with it goes to a session that is not the victim's.
    for key in KEYS:
        answer = await ask(gateway, f"/put?k={key}&user=attacker", planted)
        assert json.loads(answer.body) == {"user": "attacker"}
        assert answer.cookie is not None
        assert answer.cookie.split(".")[2] not in (planted.split(".")[2], victims.split(".")[2])
    assert await seen_by(gateway, victims, 1) == (of_victim, of_victim)


@ORDERS
async def test_what_an_attacker_asks_for_during_the_login_leads_nowhere(gateway: Gateway, order: str) -> None:
    first = Client(f"{gateway.ws_url}/?k=0")
    async with first:
        await first.ask(cart=["planted"])
    planted = first.cookie
    assert planted is not None
    cookies = {planted}
    began, is_over = asyncio.Event(), False

    async def attack(key: int) -> None:
        while not is_over:
            answer = await ask(gateway, f"/put?k={key}&by=attacker", planted)
            if answer.cookie is not None:
                cookies.add(answer.cookie)
            if order == "name-last":  # else it is in the session that the attacker has, for as long as that lives
                assert "user" not in json.loads(answer.body)
            began.set()

    async with asyncio.TaskGroup() as group:
        for key in KEYS:
            group.create_task(attack(key))
        await began.wait()
        victims = (await ask(gateway, f"/login/{order}?k=1", planted, method="POST")).cookie
        before = len(cookies)
        await wait_until(lambda: len(cookies) > before)
        is_over = True
    assert victims is not None
    assert victims not in cookies
    for cookie in cookies:
        for seen in await seen_by(gateway, cookie, 0):
            assert seen == ({} if cookie == planted else {"by": "attacker"})
    assert await seen_by(gateway, victims, 0) == ({"user": "victim", "cart": ["planted"], "by": "attacker"},) * 2
