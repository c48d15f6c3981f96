"""A handler that writes to a session which has ended without word of it: told once, and closed for good."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from support.waiting import wait_until

from stickygw import App
from stickygw.testing import AppClient, HandshakeRefused

StartClient = Callable[..., Awaitable[AppClient]]


def deafened(client: AppClient) -> AppClient:
    """`client`, whose sessions hear no more of what is done to the store."""
    client.store.on_changed.clear()
    return client


def assigning(app: App) -> None:
    @app.on_message
    def said(conn, message):
        conn.session["said"] = message


def assigning_in_a_task(app: App) -> None:
    @app.on_message
    async def said(conn, message):
        conn.session["said"] = message


def incrementing(app: App) -> None:
    @app.on_message
    async def said(conn, message):
        await conn.session.increment("said")


def incrementing_in_a_loop(app: App) -> None:
    @app.handler("/")
    async def serve(conn):
        async for _ in conn:
            await conn.session.increment("said")


@pytest.mark.parametrize("writing", [assigning, assigning_in_a_task, incrementing, incrementing_in_a_loop])
async def test_a_write_to_an_ended_session_closes_with_4401_and_is_logged_once(
    app_client: StartClient, caplog: pytest.LogCaptureFixture, writing: Callable[[App], None]
) -> None:
    app = App()
    writing(app)
    errors, ends = [], []

    @app.on_error
    async def failed(conn, error):
        errors.append(error)

    @app.on_disconnect
    async def left(conn, code, reason):
        conn.session["left"] = True
        ends.append((code, reason))

    client = deafened(await app_client(app))
    async with client.connect("/", session={"name": "Ada"}) as conn:
        await client.store.end(conn.session_id, 100)
        with caplog.at_level(logging.WARNING, "stickygw"):
            for word in "abc":
                await conn.send(word)
            assert await conn.wait_closed() == 4401
            await wait_until(lambda: client.sessions.session_count == 0)
    assert ends == [(4401, "session ended")]
    assert errors == []
    assert [record.message for record in caplog.records] == ["its session was not written: the session has ended"]


async def test_a_session_that_ends_in_its_handshake_is_asked_to_come_again(app_client: StartClient) -> None:
    app = App()

    @app.on_handshake
    async def enter(request, session):
        if "name" in session:
            await client.store.end(session.id, 100)
        session["entered"] = True

    client = deafened(await app_client(app))
    assigning(app)
    stored = await client.sessions.open(None)
    stored["name"] = "Ada"
    await stored.save()
    client.sessions.release(stored)
    with pytest.raises(HandshakeRefused) as refused:
        async with client.connect("/", session=stored.id):
            pass
    assert refused.value.status == 409
    async with client.connect("/", session=stored.id) as conn:
        assert conn.session_id == stored.id  # what it came with; it has another one
    await wait_until(lambda: client.sessions.session_count == 0)
