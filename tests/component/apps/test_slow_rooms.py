"""What becomes of slow members, by the pattern of their room: of native applications, and of ASGI WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import wait_until

from stickygw import App
from stickygw.apps.native.room_rules import RoomRules
from stickygw.asgi import rooms
from stickygw.bridge.addresses import user_address
from stickygw.testing import AppClient


class Gated:
    """A WebSocket of an ASGI application that sends nothing while its gate is shut."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.sent: list[Any] = []

    async def send_text(self, data: str) -> None:
        await self.gate.wait()
        self.sent.append(int(data))

    async def send_bytes(self, data: bytes) -> None:
        raise AssertionError("only text is published here")

    async def close(self, code: int, reason: str) -> None:
        self.sent.append(code)


@pytest.fixture
def app() -> App:
    app = App()
    app.configure_rooms("tick:*", slow_consumer="drop_oldest")
    app.configure_rooms("*:first", slow_consumer="drop_newest")
    return app


@pytest.fixture
async def client(app: App) -> AsyncIterator[AppClient]:
    async with AppClient(app, outbox_bytes=2000, outbox_seconds=0.2) as client:
        yield client


# Patterns


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*b*", "abc", True),
        ("*b*c*", "abac", True),
        ("a*b*b", "ab", False),
        ("a**b", "ab", True),
        ("*ab", "aab", True),
    ],
)
def test_a_star_is_any_characters_or_none(app: App, pattern: str, name: str, is_match: bool) -> None:
    app.configure_rooms(pattern, slow_consumer="drop_oldest")
    assert (app.room_rules.slow_consumer(name, "disconnect") == "drop_oldest") is is_match


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", max_size=12))
def test_stars_mean_what_they_mean_in_a_shell(pattern: str, name: str) -> None:
    rules = RoomRules()
    rules.add(pattern, slow_consumer="drop_oldest")
    assert (rules.slow_consumer(name, "disconnect") == "drop_oldest") is fnmatchcase(name, pattern)


@pytest.mark.parametrize(
    ("room", "policy"),
    [
        ("tick:eur", "drop_oldest"),
        ("tick:", "drop_oldest"),
        ("tick:first", "drop_oldest"),
        ("news:first", "drop_newest"),
        ("news:first:2", "disconnect"),
        ("a tick:eur", "disconnect"),
        ("Tick:eur", "disconnect"),
        (user_address("tick:eur"), "disconnect"),
    ],
)
def test_the_first_pattern_that_is_the_whole_name_decides(app: App, room: str, policy: str) -> None:
    assert app.room_rules.slow_consumer(room, "disconnect") == policy


@pytest.mark.parametrize("pattern", ["a.b", "a?", "[ab]", "(", "a\\"])
def test_nothing_but_the_star_is_special(pattern: str) -> None:
    app = App()
    app.configure_rooms(pattern, slow_consumer="drop_newest")
    assert app.room_rules.slow_consumer(pattern, "disconnect") == "drop_newest"
    assert app.room_rules.slow_consumer("ab", "disconnect") == "disconnect"


@pytest.mark.parametrize(("pattern", "policy"), [("chat", "drop"), ("chat", None), ("", "drop_oldest")])
def test_what_is_no_policy_and_no_pattern_is_refused(app: App, pattern: str, policy: Any) -> None:
    with pytest.raises(ValueError, match=r"drop|pattern"):
        app.configure_rooms(pattern, slow_consumer=policy)


async def test_without_a_pattern_the_setting_decides_for_users_too(app: App) -> None:
    async with AppClient(app, slow_consumer="drop_newest") as client:
        policy_of = client.runtime.hub.policy_of
        assert [policy_of(address) for address in ("chat", user_address("ada"), "tick:eur")] == [
            "drop_newest",
            "drop_newest",
            "drop_oldest",
        ]


# WebSockets of ASGI applications


async def flooded(client: AppClient, websocket: Gated, *names: str) -> None:
    """100 messages of some 100 bytes are published in the rooms by turns, long before anything can be sent."""
    async with rooms(websocket) as r:
        for name in names:
            await r.join(name)
        for number in range(100):
            await client._app.publish(names[number % len(names)], str(number).ljust(100))
        await asyncio.sleep(0.3)  # longer than outbox_seconds: nothing happens then, or the close
        websocket.gate.set()
        if client.counters.total("connections_closed") == 0:
            dropped = client.counters.total("messages_dropped")
            await wait_until(lambda: len(websocket.sent) == 100 - dropped)
        else:
            await wait_until(lambda: websocket.sent)


async def test_an_asgi_member_of_a_room_that_disconnects_is_closed(client: AppClient) -> None:
    websocket = Gated()
    await flooded(client, websocket, "chat")
    assert websocket.sent[-1] == 1013
    assert client.counters.total("messages_dropped") == 0


async def test_an_asgi_member_gets_the_last_ones_where_the_oldest_are_dropped(client: AppClient) -> None:
    websocket = Gated()
    await flooded(client, websocket, "tick:eur")
    dropped = client.counters.value("messages_dropped", "oldest")
    assert websocket.sent[1:] == list(range(dropped + 1, 100))
    assert dropped > 80


async def test_an_asgi_member_gets_the_first_ones_where_the_newest_are_dropped(client: AppClient) -> None:
    websocket = Gated()
    await flooded(client, websocket, "news:first")
    dropped = client.counters.value("messages_dropped", "newest")
    assert websocket.sent == list(range(100 - dropped))
    assert dropped > 80
