"""`SessionMiddleware` without a gateway: a session that is regenerated, or destroyed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.asgi_calls import Browser
from support.session_pages import Store, cookie_of, count, echo, id_in, login, logout, look, served
from support.waiting import wait_until

from stickygw.errors import SessionEnded
from stickygw.sessions.registry import new_session_id
from stickygw.types import SessionId

CLOSED = {"type": "websocket.close", "code": 4401, "reason": "session ended"}


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def app(store: Store) -> Any:
    return served({"/": count, "/look": look, "/login": login, "/logout": logout}, websocket=echo, store=store)


def id_of(browser: Browser) -> SessionId:
    return id_in(browser.cookies["stickygw"])


# Regenerate


async def test_a_login_keeps_the_fields_under_a_new_id(app: Any, store: Store) -> None:
    browser = Browser(app)
    await browser.get()
    before = id_of(browser)
    assert (await browser.get("/login")).cookie is not None
    assert store.ids == [id_of(browser)] != [before]
    assert (await browser.get("/look")).text == "{'n': 1, 'user': 'ada'}"


async def test_an_id_from_before_the_login_is_worthless_after_it(app: Any) -> None:
    victim = Browser(app)
    await victim.get()
    attacker = Browser(app, **victim.cookies)  # has planted it, or seen it
    await victim.get("/login")
    assert (await attacker.get("/look")).text == "{}"
    assert (await attacker.get()).text == "1"
    assert id_of(attacker) != id_of(victim)


async def test_an_id_that_we_never_stored_is_not_that_of_a_user(app: Any, store: Store) -> None:
    """A cookie that proves an id of which nothing is stored: one who has seen a WebSocket's answer can have it."""
    planted = new_session_id()
    browser = Browser(app, stickygw=cookie_of(planted))
    await browser.get("/login")
    assert store.ids == [id_of(browser)] != [planted]


async def test_a_new_client_s_login_needs_no_second_id(app: Any, store: Store) -> None:
    browser = Browser(app)
    assert len((await browser.get("/login")).cookies) == 1
    assert store.ids == [id_of(browser)]


async def test_a_websocket_from_before_the_login_is_closed(app: Any) -> None:
    browser = Browser(app)
    await browser.get()
    async with await browser.connect() as websocket:
        await browser.get("/login")
        assert await websocket.next() == CLOSED


async def test_behind_the_head_of_the_answer_there_is_no_new_id(store: Store) -> None:
    async def late(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "."
            with pytest.raises(RuntimeError, match="the head of the answer has left"):
                await request.session.regenerate()

        return StreamingResponse(body())

    browser = Browser(served({"/": count, "/late": late}, store=store))
    await browser.get()
    before = id_of(browser)
    await browser.get("/late")
    assert store.ids == [before]
    assert (await browser.get()).text == "2"


# Destroy


async def test_a_logout_deletes_the_session_and_the_client_forgets_its_cookie(app: Any, store: Store) -> None:
    browser = Browser(app)
    await browser.get()
    before = id_of(browser)
    assert (await browser.get("/logout")).cookie == "stickygw=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
    assert (store.ids, browser.cookies) == ([], {})
    assert (await Browser(app, stickygw=cookie_of(before)).get()).text == "1", "the old cookie is worthless"


async def test_a_logout_s_cookie_has_the_attributes_that_it_was_set_with(store: Store) -> None:
    """Else a browser keeps it (RFC 6265 §5.3)."""
    app = served({"/": count, "/logout": logout}, store=store, domain="example.com", path="/app", same_site="Strict")
    browser = Browser(app, is_tls=True)
    await browser.get()
    answer = await browser.get("/logout")
    assert answer.cookie == ("stickygw=; Path=/app; Domain=example.com; HttpOnly; SameSite=Strict; Max-Age=0; Secure")


async def test_who_has_no_session_has_no_cookie_to_forget(app: Any, store: Store) -> None:
    assert (await Browser(app).get("/logout")).cookie is None
    assert store.ids == []


async def test_after_a_logout_the_same_request_cannot_write(store: Store) -> None:
    async def again(request: Request) -> Response:
        await request.session.destroy()
        assert request.session.is_ended
        with pytest.raises(SessionEnded):
            await request.session.increment("n")
        return PlainTextResponse("bye")

    browser = Browser(served({"/": count, "/again": again}, store=store))
    await browser.get()
    assert (await browser.get("/again")).text == "bye"
    assert store.ids == []


async def test_a_logout_closes_the_websockets_of_that_session_alone(app: Any) -> None:
    browser, other = Browser(app), Browser(app)
    await browser.get()
    await other.get()
    async with await browser.connect() as one, await browser.connect() as two, await other.connect() as others:
        await browser.get("/logout")
        assert await one.next() == await two.next() == CLOSED
        others.give("websocket.receive", text="hello")
        assert (await others.next())["text"] == "hello n"


async def test_the_application_of_a_websocket_that_is_closed_learns_why_and_can_send_no_more(store: Store) -> None:
    codes = []

    async def send_on(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect) as ended:
            await websocket.receive_text()
        codes.append(ended.value.code)
        await websocket.send_text("late")

    browser = Browser(served({"/": count, "/logout": logout}, websocket=send_on, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        await browser.get("/logout")
        assert await websocket.next() == CLOSED
        websocket.give("websocket.receive", text="a message that crossed with the close")
        with pytest.raises(WebSocketDisconnect):
            await websocket.end()
    assert codes == [4401]


async def test_a_websocket_that_is_busy_is_closed_at_once(store: Store) -> None:
    go_on = asyncio.Event()

    async def work(websocket: WebSocket) -> None:
        await websocket.accept()
        await go_on.wait()
        assert (await websocket.receive())["type"] == "websocket.disconnect"

    browser = Browser(served({"/": count, "/logout": logout}, websocket=work, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        await browser.get("/logout")
        assert await websocket.next() == CLOSED
        go_on.set()
        await websocket.end()


async def test_the_server_is_asked_for_no_message_while_it_is_told_to_close(store: Store) -> None:
    """Granian (2.8) sends no close before its client says something, as long as it is asked."""
    asked = 0

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    app = served({"/": count, "/logout": logout}, websocket=accept, store=store)

    async def serving(scope: Any, receive: Any, send: Any) -> None:
        async def counted() -> Any:
            nonlocal asked
            asked += 1
            try:
                return await receive()
            finally:
                asked -= 1

        async def sending(message: Any) -> None:
            assert message["type"] != "websocket.close" or asked == 0
            await send(message)

        await app(scope, counted, sending)

    browser = Browser(serving)
    await browser.get()
    async with await browser.connect() as websocket:
        await wait_until(lambda: asked)
        await browser.get("/logout")
        assert await websocket.next() == CLOSED
        await websocket.end()


async def test_a_websocket_can_log_itself_out(store: Store) -> None:
    async def leave(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.session.destroy()
        await websocket.receive()

    browser = Browser(served(count, websocket=leave, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        assert await websocket.next() == CLOSED
        await websocket.end()
    assert (await browser.get()).text == "1"


async def test_a_websocket_whose_client_was_told_by_it_is_closed_too(app: Any) -> None:
    browser = Browser(app)
    async with await browser.connect() as websocket:
        websocket.give("websocket.receive", text="hello")
        await websocket.next()
        assert (await browser.get()).text == "1"
        await browser.get("/logout")
        assert await websocket.next() == CLOSED


async def test_a_session_that_is_ended_elsewhere_closes_its_websockets(app: Any, store: Store) -> None:
    browser = Browser(app)
    await browser.get()
    async with await browser.connect() as websocket:
        await store.end(id_of(browser), 1000)
        assert await websocket.next() == CLOSED


async def test_a_websocket_that_writes_to_a_session_that_is_stored_no_more_is_closed(app: Any, store: Store) -> None:
    browser = Browser(app)
    await browser.get()
    async with await browser.connect() as websocket:
        store._sessions.pop(id_of(browser))  # a server that came back without its data tells nobody
        websocket.give("websocket.receive", text="hello")
        assert (await websocket.next())["text"] == "hello n"
        assert await websocket.next() == CLOSED
        await websocket.end()
    assert store.ids == []


async def test_what_a_websocket_wrote_before_its_lifetime_was_over_is_saved(store: Store) -> None:
    async def busy(websocket: WebSocket) -> None:
        await websocket.accept()
        await closed.wait()
        websocket.session["last"] = "words"

    closed = asyncio.Event()
    app = served({"/": count, "/look": look}, websocket=busy, store=store, lifetime=100, ttl=50)
    browser = Browser(app)
    await browser.get()
    id = id_of(browser)
    browser.cookies["stickygw"] = cookie_of(id, age=99)
    async with await browser.connect() as websocket:
        assert await websocket.next() == CLOSED
        closed.set()
        await websocket.end()
    assert (await Browser(app, stickygw=cookie_of(id)).get("/look")).text == "{'n': 1, 'last': 'words'}"


async def test_a_message_for_a_session_that_ended_is_not_given_to_the_application(store: Store) -> None:
    """Its end was not heard of before the message came; the session was to be loaded again by then."""
    got = []

    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session.shared.mark_stale()  # type: ignore[attr-defined]
        got.append(await websocket.receive())

    browser = Browser(served(count, websocket=listen, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        store.on_changed.clear()
        await store.end(id_of(browser), 1000)
        websocket.give("websocket.receive", text="as whom?")
        assert await websocket.next() == CLOSED
        await websocket.end()
    assert got == [{"type": "websocket.disconnect", "code": 4401, "reason": "session ended"}]


async def test_it_is_watched_no_more_even_if_its_session_cannot_be_released(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = []

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        session = websocket.scope["session"]
        watched.append(lambda: session._visit._sessions.watched_by(session._visit.session_id))
        assert watched[0]() == 1

    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("stickygw.sessions.request_session.RequestSession.release", fail)
    async with await Browser(served(count, websocket=accept, store=store)).connect() as websocket:
        with pytest.raises(ZeroDivisionError):
            await websocket.end()
    assert watched[0]() == 0


async def test_the_server_s_receive_is_over_before_the_application_is(store: Store) -> None:
    asked = 0

    async def give_up(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await websocket.receive()

    app = served(count, websocket=give_up, store=store)

    async def serving(scope: Any, receive: Any, send: Any) -> None:
        async def slow_to_end() -> Any:
            nonlocal asked
            asked += 1
            try:
                return await receive()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                asked -= 1

        await app(scope, slow_to_end, send)
        assert asked == 0

    async with await Browser(serving).connect() as websocket:
        await websocket.end()


async def test_a_websocket_that_is_over_is_watched_no_more(store: Store) -> None:
    async def watching(request: Request) -> str:
        return str(request.session._visit._sessions.watched_by(request.session.id))  # type: ignore[attr-defined]

    browser = Browser(served({"/": count, "/watching": watching}, websocket=echo, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        assert (await browser.get("/watching")).text == "1"
        websocket.give("websocket.disconnect", code=1001)
        await websocket.end()
    assert (await browser.get("/watching")).text == "0"


async def test_a_websocket_ends_with_the_lifetime_of_its_cookie(store: Store) -> None:
    app = served(count, websocket=echo, store=store, lifetime=100, ttl=50)
    browser = Browser(app)
    await browser.get()
    browser.cookies["stickygw"] = cookie_of(id_of(browser), age=99)
    async with await browser.connect() as websocket:
        assert await websocket.next() == CLOSED
