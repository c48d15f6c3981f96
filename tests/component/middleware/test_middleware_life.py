"""`SessionMiddleware` without a gateway: from its arguments to the end of the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from support.asgi_calls import Browser, Call, running
from support.session_pages import SECRET, Store, count, echo, look, served
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.asgi import MemorySessionStore, SessionMiddleware
from stickygw.errors import OutsideGateway, SettingsError


async def ignored(scope: Any, receive: Any, send: Any) -> None:
    """An application that nobody asks."""


# Its arguments


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"secret": "short"}, "secret: .*at least 32 bytes"),
        ({"secret": [SECRET, "short"]}, "secret: .*at least 32 bytes"),
        ({"secret": []}, "secret: at least one"),
        ({"store": None}, "store: needed"),
        ({"ttl": 0}, "ttl: "),
        ({"lifetime": 0}, "lifetime: "),
        ({"ttl": 60, "touch_interval": 60}, "touch_interval: .*less than ttl"),
        ({"cookie_name": "a name; with=more"}, "^cookie_name: "),
        ({"cookie_name": "__Host-sid", "domain": "example.com"}, "domain: .*__Host-sid"),
        ({"cookie_name": "__Host-sid", "path": "/app"}, "path: .*__Host-sid"),
        ({"domain": "example.com; Secure"}, "domain: "),
        ({"path": "no slash"}, "path: "),
        ({"same_site": "lax, or so"}, "same_site: "),
        ({"prefix": ""}, "prefix: "),
        ({"timeout": 0}, "timeout: "),
        ({"store": "http://localhost"}, "store: .*redis://"),
    ],
)
def test_what_is_not_allowed_is_an_error_that_names_the_option(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        SessionMiddleware(ignored, **{"secret": SECRET, "store": MemorySessionStore(), **options})
    assert SECRET not in str(caught.value)


def test_it_keeps_what_a_secret_says_out_of_errors() -> None:
    with pytest.raises(SettingsError) as caught:
        SessionMiddleware(ignored, secret="too short to be one", store=MemorySessionStore())
    assert "too short to be one" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:S3cret/pass@host:6379/0", "redis://:S3cret@host/0?socket_timeout=S3cret"])
def test_it_keeps_the_store_s_password_out_of_them_too(url: str) -> None:
    with pytest.raises(SettingsError, match=r"store: .*percent-encoded") as caught:
        SessionMiddleware(ignored, secret=SECRET, store=url)
    assert "S3cret" not in str(caught.value)


async def test_without_arguments_it_says_what_it_needs_outside_a_gateway() -> None:
    with pytest.raises(OutsideGateway, match=r"SessionMiddleware, secret=…, store="):
        await Call(SessionMiddleware(ignored), {"type": "http", "headers": []}).end()


# Its life


async def our_tasks() -> list[str]:
    await asyncio.sleep(0)
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_with_the_lifespan_all_that_it_began_ends() -> None:
    store = Store()
    app = served(count, websocket=echo, store=store)
    async with running(app):
        await Browser(app).get()
        assert "session sweeper" in await our_tasks()
    assert await our_tasks() == []
    assert store.on_changed == []


async def test_so_it_does_over_valkey_with_no_connection_left(valkey: ValkeyServer, prefix: str) -> None:
    app = served(count, store=valkey.url, prefix=prefix, timeout=10)
    async with running(app):
        await Browser(app).get()
        assert len(await our_tasks()) > 1
    assert await our_tasks() == []


async def test_what_has_not_begun_needs_no_end() -> None:
    async with running(served(count)):
        pass
    assert await our_tasks() == []


async def test_a_lifespan_that_is_over_can_begin_again() -> None:
    app = served(count)
    browser = Browser(app)
    for expected in ("1", "2"):
        async with running(app):
            assert (await browser.get()).text == expected


def test_of_loops_that_have_ended_nothing_piles_up() -> None:
    store = Store()
    client = TestClient(served(count, store=store))
    assert [client.get("/").text for _ in range(5)] == list("12345")
    assert len(store.on_changed) <= 1


async def test_a_lifespan_in_another_loop_ends_nothing_of_this_one() -> None:
    store = Store()
    app = served(count, store=store)
    async with running(app):
        browser = Browser(app)
        await browser.get()

        async def elsewhere() -> None:
            async with running(app):
                assert (await Browser(app).get()).text == "1"

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert "session sweeper" in await our_tasks()
        assert (await browser.get()).text == "2"
    assert await our_tasks() == []
    assert store.on_changed == []


def test_starlette_s_test_client_runs_it_with_its_lifespan_and_without() -> None:
    app = served({"/": count, "/look": look}, websocket=echo)
    with TestClient(app) as client:
        assert [client.get("/").text for _ in range(2)] == ["1", "2"]
        with client.websocket_connect("/ws") as websocket:
            websocket.send_text("a")
            assert websocket.receive_text() == "a n"
        cookies = dict(client.cookies)
    client = TestClient(app, cookies=cookies)
    assert [client.get("/").text for _ in range(2)] == ["3", "4"]


# Valkey is away


async def test_with_valkey_away_it_is_503_and_later_as_if_nothing_had_been(
    own_valkey: ValkeyServer, prefix: str
) -> None:
    app = served({"/": count, "/look": look}, store=own_valkey.url, prefix=prefix, timeout=1)
    async with running(app):
        browser = Browser(app)
        await browser.get()
        own_valkey.pause()
        try:
            answer = await browser.get()
            assert (answer.status, answer.get("Retry-After")) == (503, "1")
            assert (await Browser(app).get("/look")).text == "{}", "a new client needs no store to read nothing"
        finally:
            own_valkey.resume()

        async def is_served() -> bool:
            return (await browser.get("/look")).status == 200

        await wait_until(is_served)


async def test_two_servers_over_one_valkey_see_each_other_s_writes(valkey: ValkeyServer, prefix: str) -> None:
    seen = []

    async def show(request: Request) -> str:
        seen.append(request.session["n"])
        return await count(request)

    one, two = (served({"/": count, "/show": show}, store=valkey.url, prefix=prefix, timeout=10) for _ in range(2))
    async with running(one), running(two):
        browser = Browser(one)
        await browser.get()
        other = Browser(two, **browser.cookies)
        assert [(await browser.get("/show")).text, (await other.get("/show")).text] == ["2", "3"]
        assert seen == [1, 2]
