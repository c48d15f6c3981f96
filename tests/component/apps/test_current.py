"""`stickygw.current()`: which application it is, and where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import stickygw.asgi as facade
from stickygw import App, OutsideGateway, current
from stickygw.testing import AppClient


def test_outside_a_gateway_it_says_what_to_do() -> None:
    with pytest.raises(OutsideGateway, match=r"stickygw run.*stickygw\.testing\.AppClient"):
        current()


async def test_it_is_the_application_from_its_start_to_its_end() -> None:
    app, seen = App(), []

    @app.on_start
    def start() -> None:
        seen.append(current())

    @app.on_stop
    def stop() -> None:
        seen.append(current())

    async with AppClient(app):
        assert current() is app
    assert seen == [app, app]
    with pytest.raises(OutsideGateway):
        current()


async def test_of_two_the_last_started_counts_and_the_one_before_comes_back() -> None:
    first, second = App(), App()
    async with AppClient(first):
        async with AppClient(second):
            assert current() is second
        assert current() is first


async def test_one_that_fails_to_start_is_none() -> None:
    app = App()

    @app.on_start
    def start() -> None:
        raise ValueError("no database")

    client = AppClient(app)
    with pytest.raises(ValueError, match="no database"):
        await client.__aenter__()
    await client.sessions.stop()
    with pytest.raises(OutsideGateway, match="no gateway runs"):
        current()


async def test_a_thread_and_another_loop_are_told_that_they_are_none_of_the_gateway_s() -> None:
    async def ask() -> None:
        current()

    async with AppClient(App()):
        for call in (current, lambda: asyncio.run(ask())):
            with pytest.raises(OutsideGateway, match="async def"):
                await asyncio.to_thread(call)


def test_the_facade_for_asgi_has_its_names_and_no_others() -> None:
    assert [getattr(facade, name).__name__ for name in facade.__all__] == facade.__all__
    with pytest.raises(AttributeError, match=r"'stickygw\.asgi' has no attribute 'Nothing'"):
        _ = facade.Nothing


async def test_an_asgi_application_publishes_from_a_request() -> None:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await current().publish("news", (await receive())["body"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"slot %d of %d" % (current().slot, current().workers)})

    app = App(http=asgi)

    @app.on_connect("/native")
    async def enter(conn: Any) -> None:
        await conn.join("news")
        await conn.send("in")

    async with AppClient(app, slot=2, workers=3) as client, client.connect("/native") as conn:
        assert await conn.receive() == "in"
        answer = await client.request("POST", "/", body=b"it is ten")
        assert (answer.status, answer.text) == (200, "slot 2 of 3")
        assert await conn.receive() == "it is ten"
