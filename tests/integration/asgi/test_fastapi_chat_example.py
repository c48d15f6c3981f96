"""examples/fastapi_chat: rooms of a FastAPI application over several workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.gateway import IN_TURNS, ROOT, Gateway
from support.raw import exchange, get, head
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

TARGET = f"{ROOT / 'examples' / 'fastapi_chat' / 'app.py'}:app"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(TARGET, *IN_TURNS, workers=2) as gateway:
        yield gateway


async def hear(client: ClientConnection, type: str) -> dict[str, Any]:
    """The next message of this type."""
    async with asyncio.timeout(20):
        while (news := json.loads(await client.recv()))["type"] != type:
            pass
    assert isinstance(news, dict)
    return news


async def announce(gateway: Gateway, room: str, text: str) -> int:
    """Have the server say `text` in `room`; the status of its answer."""
    body = json.dumps({"text": text}).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    return (await exchange(gateway.port, head("POST", f"/rooms/{room}", fields=fields) + body)).status


async def test_members_on_different_workers_hear_each_other(gateway: Gateway) -> None:
    async with gateway.connect("/ws/lobby?name=Ada") as ada:
        welcome = await hear(ada, "welcome")
        async with gateway.connect("/ws/lobby?name=Grace") as grace:
            assert {welcome["worker"], (await hear(grace, "welcome"))["worker"]} == {1, 2}
            assert (await hear(ada, "entered"))["name"] == "Grace"
            for speaker, text in ((ada, "hello"), (grace, "<b>hello</b> from the other worker")):
                await speaker.send(text)
                assert (await hear(ada, "said"))["text"] == (await hear(grace, "said"))["text"] == text
        assert (await hear(ada, "left"))["name"] == "Grace"


async def test_an_announcement_reaches_the_members_on_all_workers_and_no_other_room(gateway: Gateway) -> None:
    async with (
        gateway.connect("/ws/lobby") as one,
        gateway.connect("/ws/lobby") as other,
        gateway.connect("/ws/garden") as elsewhere,
    ):
        assert {(await hear(one, "welcome"))["worker"], (await hear(other, "welcome"))["worker"]} == {1, 2}
        await hear(elsewhere, "welcome")
        assert await announce(gateway, "lobby", "Tea is ready") == 204
        assert await announce(gateway, "garden", "It rains") == 204
        assert (await hear(one, "announced"))["text"] == (await hear(other, "announced"))["text"] == "Tea is ready"
        assert (await hear(elsewhere, "announced"))["text"] == "It rains"
        assert await announce(gateway, "lobby", " ") == 422


async def test_the_page_is_served_and_no_room_has_a_strange_name(gateway: Gateway) -> None:
    page = await get(gateway.port, "/", ("Connection", "close"))
    assert (page.status, page.get("Content-Type")) == (200, "text/html; charset=utf-8")
    assert b"FastAPI chat" in page.body
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.connect("/ws/a%20room"):
            pass
    assert refused.value.response.status_code == 403
