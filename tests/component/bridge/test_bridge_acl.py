"""A gateway whose user may do little in its store: docs/rooms.md says what it needs, and what is refused is told."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from random import Random
from typing import Any

import pytest
from redis import Redis
from support.bridge_nodes import Node
from support.client import Client
from support.gateway import IN_TURNS, ROOT, Gateway
from support.logs import whole_log
from support.publishers import KINDS, SECRET
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.bridge.claims import RedisClaims
from stickygw.errors import ExitCode, PublishError
from stickygw.reconnect import connections
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.tracking import Tracking
from stickygw.types import SessionId

APP = f"{ROOT / 'tests' / 'integration' / 'apps' / 'probe.py'}:app"
ENVIRONMENT = {"STICKYGW_SECRET": SECRET}
ID = SessionId("0123456789abcdef" * 2)
PASSWORD = "sesame"
INVALID = "invalid username-password pair or user is disabled."

PAGE = (ROOT / "docs" / "rooms.md").read_text("utf-8")
DOCUMENTED = re.findall(r"^```text\nACL SETUSER gw (.*?)^```$", PAGE, re.M | re.S)[0].split()

NewNode = Callable[[str], Coroutine[Any, Any, Node]]

kinds = pytest.mark.parametrize("kind", KINDS)


class User:
    """Of `server`, with what docs/rooms.md grants a gateway with `prefix`."""

    def __init__(self, server: ValkeyServer, prefix: str) -> None:
        self.name = f"gw-{prefix}"
        self.admin = Redis.from_url(server.url, db=1)
        self.url = f"{server.url}?db=1&username={self.name}&password={PASSWORD}"
        self.may(*(rule.replace("PASSWORD", PASSWORD).replace("game", prefix) for rule in DOCUMENTED))

    def may(self, *rules: str) -> None:
        """Change what it may do."""
        self.admin.execute_command("ACL", "SETUSER", self.name, *rules)  # type: ignore[no-untyped-call]

    def end_connections(self) -> None:
        """As a failing network would."""
        self.admin.client_kill_filter(user=self.name)

    def refusals(self) -> list[str]:
        """What it was refused so far, but for the name of a library, which redis-py gives where it may."""
        refused = [str(entry["object"]) for entry in self.admin.acl_log() if entry["username"] == self.name]
        return [command for command in refused if command != "client|setinfo"]

    def calls(self) -> dict[str, int]:
        """How often each command of the server was called, by anybody."""
        stats: dict[str, Any] = self.admin.info("commandstats")
        return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}


@pytest.fixture(params=["valkey", pytest.param("redis_server", marks=pytest.mark.long)])
def user(request: pytest.FixtureRequest, prefix: str) -> Iterator[User]:
    made = User(request.getfixturevalue(request.param), prefix)
    yield made
    made.admin.acl_deluser(made.name)
    made.admin.close()


@pytest.fixture
async def tracking(user: User, prefix: str) -> AsyncIterator[Tracking]:
    link = Tracking(connections(user.url), prefix=prefix, on_invalidated=lambda ids: None, random=Random(1))
    yield link
    await link.stop()


def warnings(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for line in lines if line.startswith(start)]


async def use_rooms(new_signed_node: NewNode, url: str) -> None:
    a, b = await new_signed_node(url), await new_signed_node(url)
    await b.bridge.subscribe("left")
    b.bridge.unsubscribe("left")
    await b.bridge.subscribe("room")
    a.publish("hello")
    await wait_until(lambda: b.received == ["hello"])


async def use_sessions(url: str, prefix: str) -> None:
    store, claims = RedisSessionStore.from_url(url, prefix=prefix), RedisClaims(url, prefix=prefix)
    await store.write(ID, {"cart": b"\x01", "name": b"\x02"}, [], 100, is_new=True)
    await store.write(ID, {}, ["cart"], 100, is_new=False, expected={"name": b"\x02"})
    assert await store.increment(ID, "visits", 1, 100, is_new=False) == 1
    assert await store.load(ID) is not None
    assert await store.touch(ID, 100)
    assert await store.lease(ID, "token", 10)
    await store.release_lease(ID, "token")
    assert [id async for id in store.sessions()] == [ID]
    assert None not in await store.describe([ID])
    await store.end(ID, 100)
    assert await store.ended_within(ID, 100, 10)
    assert await claims.claim("once", seconds=10)
    await claims.close()
    await store.close()


async def test_a_gateway_needs_what_is_documented_and_nothing_of_it_in_vain(
    user: User, tracking: Tracking, prefix: str, new_signed_node: NewNode
) -> None:
    user.admin.script_flush()
    before = user.calls()
    tracking.start()
    await use_rooms(new_signed_node, user.url)
    await use_sessions(user.url, prefix)
    await asyncio.wait_for(tracking.armed.wait(), 10)
    used = {name for name, calls in user.calls().items() if calls > before.get(name, 0)}
    assert user.refusals() == []
    assert used - {"info", "auth"} == {rule[1:] for rule in DOCUMENTED if rule[0] == "+"}


async def test_all_but_dangerous_commands_are_enough(
    user: User, tracking: Tracking, prefix: str, new_signed_node: NewNode
) -> None:
    user.may("+@all", "-@dangerous")
    tracking.start()
    await use_rooms(new_signed_node, user.url)
    await use_sessions(user.url, prefix)
    await asyncio.wait_for(tracking.armed.wait(), 10)
    assert user.refusals() == []


@kinds
async def test_a_publisher_needs_one_command_and_no_key(
    kind: Any, user: User, prefix: str, new_signed_node: NewNode
) -> None:
    node = await new_signed_node(user.url)
    await node.bridge.subscribe("room")
    user.may("resetkeys", "-@all", "+publish")
    publisher = kind(user.url.replace("db=1&", ""), secret=SECRET, prefix=prefix)
    await publisher.publish("room", "1")
    await wait_until(lambda: node.received == ["1"])
    await publisher.close()


@kinds
@pytest.mark.parametrize("rules", [["-publish"], ["resetchannels", "&elsewhere:*"]])
async def test_a_publisher_that_may_not_publish_is_told(kind: Any, rules: list[str], user: User, prefix: str) -> None:
    user.may(*rules)
    publisher = kind(user.url, secret=SECRET, prefix=prefix)
    for _ in range(2):
        with pytest.raises(PublishError, match=r"the store refused it: .*permissions") as caught:
            await publisher.publish("room", "x")
        assert not caught.value.is_uncertain
        assert PASSWORD not in str(caught.value)
    await publisher.close()


async def test_what_may_not_be_published_is_counted_said_once_and_told_as_a_gap_when_it_may(
    user: User, new_signed_node: NewNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.bridge.redis.HEAD_SECONDS", 0.05)
    a, b = await new_signed_node(user.url), await new_signed_node(user.url)
    for node in (a, b):
        await node.bridge.subscribe("room")
    user.may("-publish")
    a.publish(*"12345")
    await a.bridge.wait_sent()
    a.publish(*"67890")
    await a.bridge.wait_sent()
    assert a.lost() == {"refused": 10}
    (line,) = warnings(caplog, "bridge")
    assert re.match("bridge publisher: the store refuses messages, they stay on this worker: .*'publish'", line)
    assert a.bridge.is_connected
    user.may("+publish")
    await wait_until(lambda: b.gaps == [["room"]])
    a.publish("heard")
    b.publish("answered")
    await wait_until(lambda: (a.received, b.received) == (["answered"], ["heard"]))
    assert b.gaps == [["room"]]


async def test_without_the_right_to_hear_of_sessions_the_log_says_so(
    user: User, tracking: Tracking, prefix: str, new_signed_node: NewNode, caplog: pytest.LogCaptureFixture
) -> None:
    user.may("resetchannels", f"&{prefix}:*")
    tracking.start()
    await wait_until(lambda: warnings(caplog, "session tracking: not connected: "))
    assert "permissions" in caplog.text
    assert not tracking.armed.is_set()
    await use_rooms(new_signed_node, user.url)
    await use_sessions(user.url, prefix)


async def test_a_password_that_is_changed_ends_bridging_until_it_is_changed_back(
    user: User, new_signed_node: NewNode, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = await new_signed_node(user.url), await new_signed_node(user.url)
    await b.bridge.subscribe("room")
    user.may("resetpass", ">another")
    user.end_connections()
    wrong = [f"bridge {half}: not connected: {INVALID}" for half in ("publisher", "subscriber")]
    await wait_until(lambda: all(warnings(caplog, line) == [line] * 2 for line in wrong))
    a.publish("lost")
    assert a.lost() == {"away": 1}
    user.may(f">{PASSWORD}")
    await wait_until(lambda: a.bridge.is_connected and b.bridge.is_connected)
    a.publish("back")
    await wait_until(lambda: b.received == ["back"])


@kinds
async def test_a_wrong_password_is_said_and_not_shown(
    kind: Any,
    user: User,
    prefix: str,
    new_signed_node: NewNode,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("stickygw.bridge.redis.CONNECT_SECONDS", 0.1)
    user.may("resetpass", ">another")
    node = await new_signed_node(user.url)
    wrong = [f"bridge {half}: not connected: {INVALID}" for half in ("publisher", "subscriber")]
    await wait_until(lambda: all(warnings(caplog, line) == [line] for line in wrong))
    assert not node.bridge.is_connected
    assert PASSWORD not in caplog.text
    publisher = kind(user.url, secret=SECRET, prefix=prefix)
    with pytest.raises(PublishError, match=r"not published, .*: invalid username-password pair") as caught:
        await publisher.publish("room", "lost")
    assert PASSWORD not in str(caught.value)
    await publisher.close()


# Gateways


def options(user: User, prefix: str) -> list[str]:
    return ["--redis", user.url, "--set", f"redis.prefix={prefix}", *IN_TURNS]


async def test_a_gateway_with_what_is_documented_shares_rooms_and_sessions(user: User, prefix: str) -> None:
    with Gateway(APP, *options(user, prefix), environment=ENVIRONMENT) as gateway:
        async with Client(gateway.ws_url) as here, Client(gateway.ws_url) as there:
            for client in (here, there):
                await client.ask(do="join", room="r")
            await here.send({"do": "publish", "room": "r", "message": "across"})
            assert [await client.receive() for client in (here, there)] == ["across"] * 2
            await here.ask(do="set", field="name", value="ada")
            session = (await here.who())["session"]
            shown, _ = await asyncio.gather(
                asyncio.to_thread(gateway.command, "sessions", "show", session),
                asyncio.to_thread(gateway.command, "publish", "r", '"from a shell"'),
            )
            assert "name: " in shown.stdout
            assert [await client.receive() for client in (here, there)] == ["from a shell"] * 2
            user.admin.delete(f"{prefix}:session:{{{session}}}")
            await asyncio.wait_for(here.connection.wait_closed(), 10)
            assert here.connection.close_code == 4401
        assert user.refusals() == []
        assert "WARNING" not in gateway.log


async def test_a_gateway_that_may_not_publish_serves_each_worker_s_members(user: User, prefix: str) -> None:
    user.may("-publish")
    with Gateway(APP, *options(user, prefix), "--set", "log_level=debug", environment=ENVIRONMENT) as gateway:
        async with Client(gateway.ws_url) as here, Client(gateway.ws_url) as there:
            for client in (here, there):
                await client.ask(do="join", room="r")
            pids = gateway.worker_pids()
            for number in range(5):
                await here.send({"do": "publish", "room": "r", "message": number})
            assert [await here.receive() for _ in range(5)] == list(range(5))
            assert await asyncio.to_thread(gateway.wait_for_line, "the store refuses messages")
            assert await there.ask(do="echo") == {"do": "echo"}  # and nothing that was published
            assert gateway.worker_pids() == pids
        log = whole_log(gateway)
        assert log.count("the store refuses messages") == 1
        assert "bridge_lost{refused}=5" in log
        for word in ("Traceback", "ERROR", PASSWORD, SECRET):
            assert word not in log


def test_a_gateway_with_a_wrong_password_does_not_start_and_says_why(user: User, prefix: str) -> None:
    user.may("resetpass", ">another")
    gateway = Gateway(APP, *options(user, prefix), environment=ENVIRONMENT)
    try:
        gateway.launch()
        assert gateway.wait() == ExitCode.STORE
        assert gateway.wait_for_line("invalid username-password pair")
        assert PASSWORD not in gateway.log
        assert "Traceback" not in gateway.log
    finally:
        gateway.close()
