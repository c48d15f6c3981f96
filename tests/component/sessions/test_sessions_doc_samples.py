"""docs/sessions.md: each of its code samples does what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.asgi_calls import Browser, running
from support.valkey import ValkeyServer

from stickygw import App
from stickygw.asgi import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.testing import AppClient, HandshakeRefused

PAGE = (Path(__file__).parents[3] / "docs" / "sessions.md").read_text("utf-8")
NATIVE, ASGI, MIDDLEWARE, CONCURRENT = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def run(sample: str) -> dict[str, Any]:
    """What the sample defines."""
    names: dict[str, Any] = {}
    exec(compile(sample, "docs/sessions.md", "exec"), names)
    return names


async def test_a_native_handler_has_the_session() -> None:
    async with AppClient(run(NATIVE)["app"]) as client:
        async with client.connect("/ws") as first:
            await first.send("a")
            assert await first.receive() == {"said": ["a"], "came_by": "/ws"}
        async with client.connect("/ws", session=first.session_id) as second:
            await second.send("b")
            assert await second.receive() == {"said": ["a", "b"], "came_by": "/ws"}
        with pytest.raises(HandshakeRefused):
            async with client.connect("/ws", session={"banned": True}):
                pass


async def test_an_asgi_application_in_the_gateway_asks_for_it() -> None:
    async with AppClient(App(http=run(ASGI)["app"])) as client:
        for session in ({"visits": 41}, {}):
            answer = await client.request("POST", "/visits", session=session)
            assert json.loads(answer.text) == {"visits": session.get("visits", 0) + 1}


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


async def test_the_middleware_serves_login_cart_and_logout(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "a secret for tests, known to everyone")
    monkeypatch.setenv("STORE", server.url)
    app = run(MIDDLEWARE)["app"]
    browser = Browser(app)
    async with running(app):
        await browser.get("/login", method="POST")
        before = dict(browser.cookies)
        assert [(await browser.get("/cart", method="POST")).text for _ in range(2)] == ["1", "2"]
        await browser.get("/login", method="POST")
        assert before.keys() == browser.cookies.keys()
        assert before != browser.cookies
        await browser.get("/logout", method="POST")
        assert browser.cookies == {}


async def test_the_ways_to_change_what_others_change_too() -> None:
    store = MemorySessionStore()
    order = run(CONCURRENT)["order"]
    sessions = Sessions(store, ttl=60)
    session = await sessions.open(None)
    assert [await order(session, item) for item in ("tea", "cake")] == [1, 2]
    assert session["cart"] == ["tea", "cake"]
    session["is_paid"] = True
    assert await order(session, "coffee") == 3
    assert dict(session) == {"cart": ["coffee"], "is_paid": False, "orders": 3}
    sessions.release(session)
