"""The chat, tested as users test their own applications: `docs/testing.md` shows this file."""

import json
from pathlib import Path

import pytest

from stickygw.apps.loader import load_target

CHAT = f"{Path(__file__).parents[3] / 'examples' / 'chat' / 'app.py'}:app"


@pytest.fixture
def app():
    return load_target(CHAT, directory=Path.cwd())


async def test_a_message_reaches_everybody_in_the_room(app, app_client):
    client = await app_client(app)
    async with client.connect("/ws/lobby", session={"name": "Ada"}) as ada, client.connect("/ws/lobby") as bob:
        assert (await ada.receive())["type"] == "welcome"
        assert (await bob.receive())["type"] == "welcome"
        assert (await ada.receive())["type"] == "entered"
        await ada.send({"type": "say", "id": "1", "text": "hello"})
        for member in (ada, bob):
            said = await member.receive(timeout=1)
            assert (said["type"], said["text"], said["who"]["name"]) == ("said", "hello", "Ada")


async def test_what_the_chat_does_not_know_is_refused(app, app_client):
    client = await app_client(app)
    async with client.connect("/ws/lobby") as conn:
        await conn.send({"type": "nonsense"})
        assert await conn.wait_closed() == 1008


async def test_a_name_outlives_the_worker_that_took_it(gateway):
    gw = gateway(CHAT, workers=2)
    async with gw.connect("/ws/lobby") as conn:
        cookie = gw.cookie_of(conn)
        worker = json.loads(await conn.recv())["you"]["worker"]
        for _ in range(2):  # the session is written before the next message is handled
            await conn.send('{"type": "rename", "name": "Ada"}')
            assert '"renamed"' in await conn.recv()
    gw.kill_worker(worker - 1)
    async with gw.connect("/ws/lobby", cookie=cookie) as conn:
        assert '"name":"Ada"' in await conn.recv()
