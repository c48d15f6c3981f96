"""``stickygw publish`` and a publisher of another program reach the clients of real gateways."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from support.gateway import IN_TURNS, Gateway
from support.logs import whole_log
from support.publishers import SECRET
from support.valkey import ValkeyServer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from stickygw.publisher import AsyncPublisher

ADDRESSED = f"{Path(__file__).parents[1] / 'apps' / 'addressed.py'}:app"
DEADLINE = 20.0


async def publish(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(gateway.command, "publish", *arguments)


async def receive(client: ClientConnection) -> str | bytes:
    async with asyncio.timeout(DEADLINE):
        return await client.recv()


async def ask(client: ClientConnection, question: str) -> str:
    await client.send(question)
    answer = await receive(client)
    assert isinstance(answer, str)
    return answer


def client(gateway: Gateway) -> connect:
    return connect(gateway.ws_url, open_timeout=DEADLINE, proxy=None)


async def test_with_the_embedded_store_members_users_and_sessions_get_it() -> None:
    with Gateway(ADDRESSED, *IN_TURNS, workers=2) as gateway:
        async with client(gateway) as member, client(gateway) as ada:
            assert await ask(member, "join lobby") == "joined lobby"
            assert await ask(ada, "identify ada") == "identified ada"
            session = await ask(ada, "session")

            done = await publish(gateway, "lobby", "hello é")
            assert (done.returncode, done.stdout, done.stderr) == (0, "8 bytes published to room lobby\n", "")
            assert await receive(member) == "hello é"

            done = await publish(gateway, "lobby", "AP8=", "--binary", "--json")
            assert json.loads(done.stdout) == {"room": "lobby", "bytes": 2}
            assert await receive(member) == b"\x00\xff"

            assert (await publish(gateway, "--user", "ada", "to ada")).returncode == 0
            assert await receive(ada) == "to ada"
            assert (await publish(gateway, "--session", session, "to her session")).returncode == 0
            assert await receive(ada) == "to her session"

            await publish(gateway, "lobby", "end")
            assert await receive(member) == "end"  # and nothing that was Ada's before it
        assert "Traceback" not in whole_log(gateway)


async def test_gateways_at_one_redis_are_all_reached_and_their_secret_is_not_shown(
    valkey: ValkeyServer, prefix: str
) -> None:
    options = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}"]
    environment = {"STICKYGW_SECRET": SECRET}
    with (
        Gateway(ADDRESSED, *options, workers=1, environment=environment) as first,
        Gateway(ADDRESSED, *options, workers=1, environment=environment) as second,
    ):
        async with client(first) as here, client(second) as there:
            for member in (here, there):
                await ask(member, "join lobby")
            done = await publish(first, "lobby", "to both")
            assert (done.returncode, done.stderr) == (0, "")
            assert [await receive(member) for member in (here, there)] == ["to both", "to both"]

            async with AsyncPublisher(valkey.url, secret=SECRET, prefix=prefix, timeout=10.0) as publisher:
                await publisher.publish("lobby", "from a program")
                assert [await receive(member) for member in (here, there)] == ["from a program"] * 2
                await ask(there, "identify ada")
                await publisher.disconnect(user="ada", code=4001, reason="elsewhere")
                with pytest.raises(ConnectionClosed) as closed:
                    await receive(there)
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "elsewhere")
        shown = done.stdout + done.stderr + whole_log(first) + whole_log(second)
    assert SECRET not in shown
    assert "Traceback" not in shown


async def test_a_gateway_that_does_not_sign_is_reached_by_anybody(valkey: ValkeyServer, prefix: str) -> None:
    options = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}", "--set", "redis.sign=false"]
    with Gateway(ADDRESSED, *options, workers=1, environment={"STICKYGW_SECRET": SECRET}) as gateway:
        async with client(gateway) as member:
            await ask(member, "join lobby")
            async with AsyncPublisher(valkey.url, prefix=prefix, timeout=10.0) as publisher:
                await publisher.publish("lobby", "unsigned")
            assert await receive(member) == "unsigned"
            assert (await publish(gateway, "lobby", "by the command")).returncode == 0
            assert await receive(member) == "by the command"
