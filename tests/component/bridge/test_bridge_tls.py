"""Every link to the store by TLS: what worked without it works, and no server is trusted that cannot prove its name."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.bridge_nodes import Node
from support.client import Client
from support.gateway import IN_TURNS, ROOT, Gateway
from support.observed import descriptors
from support.publishers import KINDS, SECRET, Listener
from support.redis_tls import HOST, Authority, TlsServer
from support.waiting import wait_until

from stickygw.bridge.claims import ClaimsUnavailable, RedisClaims
from stickygw.errors import ExitCode, PublishError, SessionUnavailable
from stickygw.publisher import Publisher
from stickygw.reconnect import connections
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.tracking import Tracking
from stickygw.types import SessionId

APP = f"{ROOT / 'tests' / 'integration' / 'apps' / 'probe.py'}:app"
ENVIRONMENT = {"STICKYGW_SECRET": SECRET}
ID = SessionId("0123456789abcdef" * 2)
USER = "gw:sesame"

NewNode = Callable[[str], Coroutine[Any, Any, Node]]

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls"))
    try:
        user, password = USER.split(":")
        server.admin.acl_setuser(
            user, enabled=True, passwords=[f"+{password}"], commands=["+@all"], keys=["*"], channels=["*"]
        )
        yield server
    finally:
        server.close()


@pytest.fixture(autouse=True)
async def nothing_left_open(store: TlsServer) -> AsyncIterator[None]:
    """An end by TLS takes an exchange with the server, which goes on behind the one who closes."""
    before = descriptors(os.getpid())
    yield
    await wait_until(lambda: descriptors(os.getpid()) <= before)


@pytest.fixture(params=["another authority", "another name"])
def refused_url(request: pytest.FixtureRequest, store: TlsServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a server that cannot prove to be the one that is meant."""
    if request.param == "another name":
        return store.url(user=USER, host="localhost")
    return store.url(user=USER, authority=Authority(tmp_path_factory.mktemp("stranger"), "stranger"))


@asynccontextmanager
async def tracking(url: str, prefix: str, calls: list[list[SessionId] | None]) -> AsyncIterator[Tracking]:
    link = Tracking(connections(url), prefix=prefix, on_invalidated=calls.append, random=Random(1))
    link.start()
    try:
        yield link
    finally:
        await link.stop()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_messages_cross_and_come_again_after_the_connections_were_lost(
    store: TlsServer, new_signed_node: NewNode
) -> None:
    a, b = await new_signed_node(store.url(user=USER)), await new_signed_node(store.url(user=USER))
    await b.bridge.subscribe("room")
    long = "long " * 100_000  # many records of TLS
    a.publish("1", long)
    await wait_until(lambda: len(b.received) == 2)
    store.admin.client_kill_filter(user="gw")
    await wait_until(lambda: b.gaps and a.bridge.is_connected and b.bridge.is_connected)
    a.publish("2")
    await wait_until(lambda: len(b.received) == 3)
    assert b.received == ["1", long, "2"]


@kinds
async def test_a_publisher_reaches_a_room(kind: Any, store: TlsServer, prefix: str) -> None:
    worker = Listener(store.url(user=USER), prefix, SECRET)
    publisher = kind(store.url(user=USER), secret=SECRET, prefix=prefix)
    await worker.hear("room")
    await publisher.publish("room", "1")
    await publisher.publish("room", "2")
    await wait_until(lambda: worker.payloads == [b"1", b"2"])
    await publisher.close()
    await worker.bridge.stop()


async def test_sessions_are_kept_claimed_and_told_of(store: TlsServer, prefix: str) -> None:
    url, calls = store.url(user=USER), list[list[SessionId] | None]()
    sessions, claims = RedisSessionStore.from_url(url, prefix=prefix), RedisClaims(url, prefix=prefix)
    async with tracking(url, prefix, calls) as link:
        await asyncio.wait_for(link.armed.wait(), 10)
        await sessions.write(ID, {"cart": b"\x01"}, [], 100, is_new=True)
        await wait_until(lambda: [ID] in calls)
    loaded = await sessions.load(ID)
    assert loaded is not None
    assert loaded.fields == {"cart": b"\x01"}
    assert await claims.claim("once", seconds=10)
    await claims.close()
    await sessions.close()


async def test_a_server_that_cannot_prove_its_name_is_not_told_a_word(
    refused_url: str,
    store: TlsServer,
    prefix: str,
    new_signed_node: NewNode,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("stickygw.bridge.redis.CONNECT_SECONDS", 0.1)
    logged_in = store.admin.info("commandstats").get("cmdstat_auth", {"calls": 0})["calls"]
    node = await new_signed_node(refused_url)
    async with tracking(refused_url, prefix, []) as link:
        for name in ("bridge publisher", "bridge subscriber", "session tracking"):
            refusal = f"{name}: not connected: Error 1 connecting to "
            await wait_until(lambda start=refusal: any(line.startswith(start) for line in caplog.messages))  # type: ignore[misc]
        assert not link.armed.is_set()
    assert not node.bridge.is_connected
    assert len([line for line in warnings(caplog) if "certificate verify failed" in line]) == 3
    assert "sesame" not in caplog.text
    assert SECRET not in caplog.text
    assert "Traceback" not in caplog.text
    assert store.admin.info("commandstats").get("cmdstat_auth", {"calls": 0})["calls"] == logged_in


async def test_a_certificate_that_is_changed_is_told_though_connections_end_without_a_reason(
    tmp_path: Path, new_signed_node: NewNode, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(TlsServer(tmp_path)) as server:
        node = await new_signed_node(server.url(user="default:"))
        certificate, key = Authority(tmp_path, "stranger").sign(HOST)
        server.admin.config_set("tls-cert-file", str(certificate), "tls-key-file", str(key))
        server.admin.client_kill_filter(user="default", skipme=True)
        refusal = "certificate verify failed"
        await wait_until(lambda: len([line for line in warnings(caplog) if refusal in line]) == 2)
        await node.bridge.stop()


@kinds
async def test_a_publisher_says_that_it_does_not_trust_the_server(kind: Any, refused_url: str, prefix: str) -> None:
    publisher = kind(refused_url, secret=SECRET, prefix=prefix)
    with pytest.raises(PublishError, match=r"not published.*certificate verify failed") as caught:
        await publisher.publish("room", "lost")
    assert not caught.value.is_uncertain
    assert "sesame" not in str(caught.value)
    await publisher.close()


async def test_sessions_of_a_server_that_is_not_trusted_are_unavailable(refused_url: str, prefix: str) -> None:
    sessions, claims = RedisSessionStore.from_url(refused_url, prefix=prefix), RedisClaims(refused_url, prefix=prefix)
    with pytest.raises(SessionUnavailable, match="certificate verify failed"):
        await sessions.load(ID)
    with pytest.raises(ClaimsUnavailable, match="certificate verify failed"):
        await claims.claim("once", seconds=10)
    await claims.close()
    await sessions.close()


async def test_a_gateway_s_workers_share_rooms_and_sessions(store: TlsServer, prefix: str) -> None:
    url = store.url(user=USER)
    options = ["--redis", url, "--set", f"redis.prefix={prefix}", *IN_TURNS]
    with (
        Gateway(APP, *options, environment=ENVIRONMENT) as gateway,
        Publisher(url, secret=SECRET, prefix=prefix, codec="json") as publisher,
    ):
        async with Client(gateway.ws_url) as here, Client(gateway.ws_url) as there:
            assert {(await client.who())["slot"] for client in (here, there)} == {0, 1}
            for client in (here, there):
                await client.ask(do="join", room="r")
            await here.send({"do": "publish", "room": "r", "message": "across"})
            assert [await client.receive() for client in (here, there)] == ["across"] * 2
            await asyncio.to_thread(publisher.publish, "r", "from outside")
            assert [await client.receive() for client in (here, there)] == ["from outside"] * 2
            await here.ask(do="set", field="name", value="ada")
            session = (await here.who())["session"]
            shown = await asyncio.to_thread(gateway.command, "sessions", "show", session)
            assert "name: " in shown.stdout
        for secret in ("sesame", SECRET, "WARNING", "ERROR"):
            assert secret not in gateway.log


def test_a_gateway_does_not_start_with_a_server_that_it_does_not_trust(refused_url: str) -> None:
    gateway = Gateway(APP, "--redis", refused_url, environment=ENVIRONMENT)
    try:
        gateway.launch()
        assert gateway.wait() == ExitCode.STORE
        assert gateway.wait_for_line("certificate verify failed")
        assert "sesame" not in gateway.log
        assert SECRET not in gateway.log
        assert "Traceback" not in gateway.log
    finally:
        gateway.close()
