"""`SessionMiddleware` without a gateway: the session of a WebSocket is that of its client's HTTP requests."""

from __future__ import annotations

import asyncio
import re

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from support.asgi_calls import Answer, Browser
from support.session_pages import Store, count, echo, id_in, look, served
from support.waiting import wait_until


@pytest.fixture
def store() -> Store:
    return Store()


async def test_what_a_websocket_writes_http_reads_and_the_reverse(store: Store) -> None:
    browser = Browser(served({"/": count, "/look": look}, websocket=echo, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        websocket.give("websocket.receive", text="a")
        assert (await websocket.next())["text"] == "a n"
        assert (await browser.get("/look")).text == "{'n': 1, 'a': True}"
        assert (await browser.get()).text == "2"
        websocket.give("websocket.receive", text="b")
        assert (await websocket.next())["text"] == "a b n"


async def test_what_it_wrote_is_saved_when_it_waits_for_the_next_message(store: Store) -> None:
    browser = Browser(served(count, websocket=echo, store=store))
    async with await browser.connect() as websocket:
        websocket.give("websocket.receive", text="a")
        await websocket.next()
        await wait_until(lambda: store.ids == [id_in(browser.cookies["stickygw"])])


async def test_what_it_wrote_last_is_saved_when_it_ends(store: Store) -> None:
    async def once(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.session["last"] = True
        await websocket.close()

    browser = Browser(served(look, websocket=once, store=store))
    async with await browser.connect() as websocket:
        await websocket.end()
    assert (await browser.get()).text == "{'last': True}"


async def test_what_others_wrote_it_sees_at_its_next_message(store: Store) -> None:
    async def fields(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_text(" ".join(sorted(websocket.session)))

    browser = Browser(served(count, websocket=fields, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        await store.write(id_in(browser.cookies["stickygw"]), {"theirs": b"\x01"}, (), 100, is_new=False)
        async with asyncio.timeout(5):
            text = ""
            while "theirs" not in text:  # the word of it is on its way
                websocket.give("websocket.receive", text="?")
                text = (await websocket.next())["text"]


async def test_a_wait_for_a_message_that_was_given_up_loses_none(store: Store) -> None:
    async def impatient(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            try:
                async with asyncio.timeout(0):
                    text = await websocket.receive_text()
            except TimeoutError:
                await asyncio.sleep(0)
                continue
            await websocket.send_text(text)

    browser = Browser(served(count, websocket=impatient, store=store))
    async with await browser.connect() as websocket:
        for number in range(20):
            websocket.give("websocket.receive", text=str(number))
        assert [(await websocket.next())["text"] for _ in range(20)] == [str(number) for number in range(20)]


# Cookies


async def test_a_new_client_is_told_by_the_handshake_although_nothing_is_stored(store: Store) -> None:
    browser = Browser(served(look, websocket=echo, store=store), is_tls=True)
    async with browser.open() as websocket:
        accepted = await websocket.next()
        answer = Answer(101, accepted["headers"])
        assert re.fullmatch(r"stickygw=v1\S+; Path=/; HttpOnly; SameSite=Lax; Max-Age=\d+; Secure", answer.cookie or "")
        assert (answer.get("Vary"), answer.get("Cache-Control")) == (None, None)
    assert store.ids == []


async def test_a_known_client_is_not_told_again() -> None:
    browser = Browser(served(count, websocket=echo))
    await browser.get()
    async with browser.open() as websocket:
        assert Answer(101, (await websocket.next())["headers"]).cookie is None


async def test_an_accept_keeps_the_application_s_own_fields_and_subprotocol() -> None:
    async def own(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="chat", headers=[(b"x-own", b"1")])

    async with Browser(served(count, websocket=own)).open() as websocket:
        accepted = await websocket.next()
        assert accepted["subprotocol"] == "chat"
        assert [name for name, _ in accepted["headers"]] == [b"x-own", b"set-cookie"]


async def test_a_denial_tells_a_new_client_of_the_session_it_wrote_to(store: Store) -> None:
    async def deny(websocket: WebSocket) -> None:
        websocket.session["tries"] = websocket.session.get("tries", 0) + 1
        await websocket.send_denial_response(PlainTextResponse("log in first", 401))

    browser = Browser(served(look, websocket=deny, store=store))
    async with browser.open() as call:
        answer = browser.took(await call.answer())
        await call.end()
    assert (answer.status, answer.text, answer.get("Vary")) == (401, "log in first", "Cookie")
    assert answer.cookie is not None
    assert (await browser.get()).text == "{'tries': 1}"


async def test_a_regenerated_session_is_told_by_the_handshake(store: Store) -> None:
    async def login(websocket: WebSocket) -> None:
        await websocket.session.regenerate()
        await websocket.accept()
        await websocket.send_text(str(dict(websocket.session)))
        await websocket.receive()

    browser = Browser(served(count, websocket=login, store=store))
    await browser.get()
    before = browser.cookies["stickygw"]
    async with await browser.connect() as websocket:
        assert (await websocket.next())["text"] == "{'n': 1}"
        assert store.ids == [id_in(browser.cookies["stickygw"])] != [id_in(before)]


# The store is away


async def test_a_session_that_cannot_be_loaded_is_a_503_in_the_handshake_s_place(store: Store) -> None:
    browser = Browser(served(count, websocket=echo, store=store))
    await browser.get()
    store.is_away = True
    async with browser.open() as call:
        answer = await call.answer()
        assert (answer.status, answer.get("Retry-After")) == (503, "1")
        await call.end()


async def test_without_the_extension_for_that_it_is_the_server_s_403(store: Store) -> None:
    browser = Browser(served(count, websocket=echo, store=store))
    await browser.get()
    store.is_away = True
    async with browser.open(can_deny=False) as call:
        assert (await call.next())["type"] == "websocket.close"
        await call.end()


@pytest.mark.parametrize("can_deny", [True, False])
async def test_a_handshake_whose_session_was_not_saved_is_refused(can_deny: bool, store: Store) -> None:
    async def write(websocket: WebSocket) -> None:
        websocket.session["seen"] = True
        store.is_away = True
        await websocket.accept()
        await websocket.send_text("never sent")

    browser = Browser(served(count, websocket=write, store=store))
    await browser.get()
    async with browser.open(can_deny=can_deny) as call:
        if can_deny:
            assert (await call.answer()).status == 503
        else:
            assert (await call.next())["type"] == "websocket.close"
        with pytest.raises(WebSocketDisconnect):
            await call.end()


async def test_an_open_websocket_outlives_the_store_and_its_writes_are_saved_later(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(served({"/": count, "/look": look}, websocket=echo, store=store))
    await browser.get()
    async with await browser.connect() as websocket:
        store.is_away = True
        websocket.give("websocket.receive", text="a")
        assert (await websocket.next())["text"] == "a n"
        await wait_until(lambda: "a session was not written: away" in caplog.text)
        store.is_away = False
        websocket.give("websocket.receive", text="b")
        assert (await websocket.next())["text"] == "a b n"
        await wait_until(lambda: store.writes >= 3)
    assert (await browser.get("/look")).text == "{'n': 1, 'a': True, 'b': True}"


# Without autoload


async def test_without_autoload_a_websocket_loads_its_session_when_it_needs_it(store: Store) -> None:
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        assert not websocket.session.is_loaded
        await websocket.session.load()
        await websocket.send_text(str(dict(websocket.session)))

    app = served(count, websocket=late, store=store, autoload=lambda scope: scope["type"] == "http")
    browser = Browser(app)
    await browser.get()
    async with await browser.connect() as websocket:
        assert (await websocket.next())["text"] == "{'n': 1}"


async def test_a_request_s_session_is_no_more_when_it_is_over() -> None:
    kept = []

    async def keep(request: Request) -> str:
        kept.append(request.session)
        return "kept"

    await Browser(served(keep)).get()
    with pytest.raises(RuntimeError, match="the request is over"):
        kept[0]["n"] = 1
