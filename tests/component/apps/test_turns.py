"""The order of one connection's handlers, and that whatever they raise ends this connection only, and wholly."""

import asyncio
import functools
from collections.abc import Awaitable, Callable

import pytest
from support.waiting import wait_until
from websockets.frames import Frame, Opcode

from stickygw import App, Connection, ConnectionClosed, Refuse, SessionUnavailable
from stickygw.testing import AppClient, HandshakeRefused

StartClient = Callable[..., Awaitable[AppClient]]


async def cancelled_elsewhere() -> None:
    """Await a task that somebody else has cancelled."""
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


def nothing_is_left(client: AppClient) -> bool:
    return not client.runtime.connections and client.sessions.session_count == 0


def send_forever(conn: Connection) -> None:
    while True:
        conn.send("x" * 100_000)


class Told:
    """What the handlers of an application were called with."""

    def __init__(self, app: App) -> None:
        self.messages: list[object] = []
        self.ends: list[int] = []
        app.on_disconnect(self._left)

    def _left(self, conn: Connection, code: int, reason: str) -> None:
        self.ends.append(code)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_cancelled_error_in_a_handler_is_an_error_of_that_handler(
    app_client: StartClient, is_async: bool
) -> None:
    app = App()
    told = Told(app)

    if is_async:

        @app.on_message
        async def said(conn, message):
            await cancelled_elsewhere()

    else:

        @app.on_message
        def said_now(conn, message):
            raise asyncio.CancelledError

    client = await app_client(app)
    async with client.connect("/") as conn:
        await conn.send("x")
        assert await conn.wait_closed() == 1011
    await wait_until(lambda: nothing_is_left(client))
    assert told.ends == [1011]


async def test_a_cancelled_error_in_on_handshake_is_500_and_leaves_nothing(app_client: StartClient) -> None:
    app = App()
    app.on_message(lambda conn, message: None)

    @app.on_handshake
    async def who(request, session):
        await cancelled_elsewhere()

    client = await app_client(app)
    with pytest.raises(HandshakeRefused, match="500"):
        async with client.connect("/"):
            pass
    assert nothing_is_left(client)


async def test_on_disconnect_runs_once_when_a_def_handlers_own_write_finds_the_client_gone(
    app_client: StartClient,
) -> None:
    app = App()
    told = Told(app)

    @app.on_message
    def said(conn, message):
        conn.session["dirty"] = message
        with pytest.raises(ConnectionClosed):
            send_forever(conn)

    client = await app_client(app)
    async with client.connect("/") as conn:
        await conn.send("x")
        conn.connection.transport.abort()
        await wait_until(lambda: told.ends and nothing_is_left(client))
    assert len(told.ends) == 1


async def test_messages_behind_a_close_of_the_application_are_not_handled(app_client: StartClient) -> None:
    app = App()
    told = Told(app)
    have_arrived = asyncio.Event()

    @app.on_connect
    async def enter(conn):
        await have_arrived.wait()
        conn.close(4403, "not for you")

    @app.on_message
    async def said(conn, message):
        told.messages.append(message)

    client = await app_client(app)
    async with client.connect("/") as conn:
        for number in range(10):
            await conn.send(str(number))
        await (await conn.connection.ping())  # answered behind them, so they have arrived
        have_arrived.set()
        assert await conn.wait_closed() == 4403
    await wait_until(lambda: nothing_is_left(client))
    assert told.messages == []


async def test_a_handshake_that_ends_after_the_stop_began_is_503() -> None:
    app = App()
    app.on_message(lambda conn, message: None)
    asked, goes_on = asyncio.Event(), asyncio.Event()

    @app.on_handshake
    async def who(request, session):
        asked.set()
        await goes_on.wait()

    client = AppClient(app)
    await client.__aenter__()

    async def late() -> None:
        async with client.connect("/"):
            pass

    opening = asyncio.ensure_future(late())
    await asked.wait()
    stopping = asyncio.ensure_future(client.__aexit__(None, None, None))
    await wait_until(lambda: client.runtime.is_stopping)
    goes_on.set()
    with pytest.raises(HandshakeRefused, match="503"):
        await opening
    await stopping


@pytest.mark.parametrize("status", [400, 499, 599])
async def test_a_refusal_may_have_any_status(app_client: StartClient, status: int) -> None:
    app = App()
    app.on_message(lambda conn, message: None)

    @app.on_handshake
    def who(request, session):
        raise Refuse(status, "no")

    client = await app_client(app)
    with pytest.raises(HandshakeRefused) as refused:
        async with client.connect("/"):
            pass
    assert refused.value.status == status


@pytest.mark.parametrize("headers", [{"X": "a\r\nSet-Cookie: b"}, {"X": "☺"}, {"X\n": "a"}])
def test_a_refusals_headers_are_checked_where_they_are_given(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        Refuse(401, headers=headers)


async def test_a_decorated_async_handler_is_awaited(app_client: StartClient) -> None:
    app = App()

    def traced(function):
        @functools.wraps(function)
        def wrapper(*arguments):
            return function(*arguments)

        return wrapper

    @app.on_message
    @traced
    async def said(conn, message):
        await asyncio.sleep(0)
        await conn.send(message)

    client = await app_client(app)
    async with client.connect("/") as conn:
        for text in ("a", "b"):
            await conn.send(text)
            assert await conn.receive() == text


async def test_an_applications_own_reader_leaves_nothing_behind(app_client: StartClient) -> None:
    app = App()
    told = Told(app)
    readers: list[asyncio.Task[None]] = []

    async def read(conn: Connection) -> None:
        async for message in conn:
            told.messages.append(message)
            await conn.send("got it")

    @app.on_connect
    def enter(conn):
        readers.append(asyncio.ensure_future(read(conn)))

    client = await app_client(app)
    async with client.connect("/") as conn:
        await conn.send("one")
        assert await conn.receive() == "got it"
    await wait_until(lambda: nothing_is_left(client))
    await asyncio.gather(*readers)
    assert (told.messages, told.ends) == (["one"], [1000])


async def test_only_one_coroutine_at_a_time_may_receive(app_client: StartClient) -> None:
    app = App()

    @app.handler
    async def whole(conn):
        first = asyncio.ensure_future(conn.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one coroutine"):
            await conn.receive()
        await conn.send(await first)

    client = await app_client(app)
    async with client.connect("/") as conn:
        await conn.send("x")
        assert await conn.receive() == "x"


async def test_a_second_receive_is_refused_while_the_first_still_writes_the_session(app_client: StartClient) -> None:
    app = App()
    refused: list[BaseException] = []

    @app.handler
    async def whole(conn):
        conn.session["name"] = "Ada"  # so that the first receive has something to wait for before it waits
        first = asyncio.ensure_future(conn.receive())
        second = asyncio.ensure_future(conn.receive())
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        refused.extend(error for task in done if (error := task.exception()) is not None)
        await conn.send(await first)

    client = await app_client(app)
    write = client.store.write

    async def slow_write(*arguments, **options):
        await asyncio.sleep(0)
        await write(*arguments, **options)

    client.store.write = slow_write  # type: ignore[method-assign]
    async with client.connect("/") as conn:
        await wait_until(lambda: refused, seconds=3)
        await conn.send("x")
        assert await conn.receive() == "x"
    assert [type(error) for error in refused] == [RuntimeError]


async def test_a_close_between_two_receives_ends_the_loop_quietly(app_client: StartClient) -> None:
    """Every 64 messages a reader lets others have their turn; what waits for it may be gone when it goes on."""
    app = App()
    told = Told(app)
    errors: list[BaseException] = []
    app.on_error(lambda conn, error: errors.append(error))

    @app.handler
    async def whole(conn):
        async for message in conn:
            told.messages.append(message)
            if len(told.messages) == 63:
                asyncio.get_running_loop().call_soon(conn.close, 4000)

    client = await app_client(app)
    async with client.connect("/") as conn:
        conn.connection.transport.write(Frame(Opcode.TEXT, b"x").serialize(mask=True) * 200)
        assert await conn.wait_closed() == 4000
    await wait_until(lambda: nothing_is_left(client))
    assert errors == []
    assert (len(told.messages), told.ends) == (63, [4000])


@pytest.mark.parametrize("is_loop", [True, False], ids=["async_for", "on_message"])
async def test_a_flood_to_async_handlers_leaves_others_their_turn(app_client: StartClient, is_loop: bool) -> None:
    app = App()
    counts = {"messages": 0, "turns": 0}

    if is_loop:

        @app.handler
        async def whole(conn):
            async for _ in conn:
                counts["messages"] += 1

    else:

        @app.on_message
        async def said(conn, message):
            counts["messages"] += 1

    client = await app_client(app)
    async with client.connect("/") as conn:
        conn.connection.transport.write(Frame(Opcode.TEXT, b"x").serialize(mask=True) * 3000)
        while counts["messages"] < 3000:
            counts["turns"] += 1
            await asyncio.sleep(0)
    assert counts["turns"] > 20


async def test_a_message_larger_than_the_outbox_is_delivered(app_client: StartClient) -> None:
    app = App()

    @app.on_message
    async def said(conn, message):
        await conn.send("x" * 3_000_000)
        await conn.send("done")

    client = await app_client(app, outbox_bytes=1 << 20)
    async with client.connect("/", max_size=None) as conn:
        await conn.send("go")
        assert len(await conn.receive()) == 3_000_000
        assert await conn.receive() == "done"


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (1005, ""), (200, ""), (1000, "x" * 124), (1000, "ä" * 62)])
async def test_a_close_that_no_frame_can_carry_is_a_clear_error(
    app_client: StartClient, code: int, reason: str
) -> None:
    app = App()
    errors: list[BaseException] = []
    app.on_error(lambda conn, error: errors.append(error))

    @app.on_message
    def said(conn, message):
        conn.close(code, reason)

    client = await app_client(app)
    async with client.connect("/") as conn:
        await conn.send("x")
        assert await conn.wait_closed() == 1011
    assert isinstance(errors[0], ValueError)
    assert "close" in str(errors[0])


async def test_a_failed_write_of_the_session_is_made_good_at_the_end(app_client: StartClient) -> None:
    app = App()

    @app.on_message
    async def said(conn, message):
        conn.session["name"] = message
        await conn.send("ok")

    client = await app_client(app)
    write = client.store.write

    async def away(*arguments, **options):
        raise SessionUnavailable("away")

    async with client.connect("/") as conn:
        client.store.write = away  # type: ignore[method-assign]
        await conn.send("Ada")
        await conn.receive()
        client.store.write = write  # type: ignore[method-assign]
    await wait_until(lambda: nothing_is_left(client))
    assert await client.session(conn.session_id) == {"name": "Ada"}


async def test_an_application_that_does_not_stop_fails_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stickygw.testing.app_client.DEADLINE", 0.2)
    app = App()
    held = asyncio.Event()

    @app.on_message
    async def said(conn, message):
        await held.wait()

    with pytest.raises(AssertionError, match=r"does not stop.*said"):
        await stuck(app)
    held.set()
    await asyncio.sleep(0)


async def stuck(app: App) -> None:
    async with AppClient(app) as client, client.connect("/") as conn:
        await conn.send("x")
        await wait_until(lambda: client.runtime.connections)
