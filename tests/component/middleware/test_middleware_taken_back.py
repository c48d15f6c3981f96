"""`SessionMiddleware`: an answer that says "not done" is not done later, and not by other requests of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocket
from support.asgi_calls import Browser, Call
from support.session_pages import Store, count, echo, look, served
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable
from stickygw.sessions.session import Session


async def add(request: Request) -> str:
    """Something in a list, changed in place."""
    request.session.setdefault("cart", []).append("tea")
    return "added"


async def forget(request: Request) -> str:
    """A field less."""
    del request.session["n"]
    return "forgotten"


async def size(request: Request) -> str:
    """Reads the list alone."""
    return str(len(request.session["cart"]))


PAGES = {"/count": count, "/add": add, "/forget": forget, "/look": look, "/size": size}


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def browser(store: Store) -> Browser:
    return Browser(served(PAGES, websocket=echo, store=store))


@pytest.fixture
async def websocket(browser: Browser) -> AsyncIterator[Call]:
    """That keeps the session in memory."""
    await browser.get("/count")
    await browser.get("/add")
    async with await browser.connect() as call:
        yield call


WAS = "{'n': 1, 'cart': ['tea']}"


@pytest.mark.usefixtures("websocket")
@pytest.mark.parametrize("path", ["/count", "/add", "/forget"])
async def test_what_was_answered_503_nobody_sees_and_nobody_writes_later(
    path: str, browser: Browser, store: Store
) -> None:
    store.is_away = True
    assert [(await browser.get(path)).status for _ in range(2)] == [503, 503]
    answer = await browser.get("/look")
    assert (answer.status, answer.text) == (200, WAS), "of a session in memory reads are answered"
    store.is_away = False
    assert (await browser.get("/look")).text == WAS
    assert (await Browser(served(look, store=store), **browser.cookies).get()).text == WAS


async def test_what_is_behind_the_503_is_not_done_either(store: Store) -> None:
    async def later(request: Request) -> Response:
        async def write() -> None:
            request.session["later"] = True

        request.session["n"] = 2
        store.is_away = True
        return PlainTextResponse("done", background=BackgroundTask(write))

    browser = Browser(served({"/": count, "/later": later, "/look": look}, websocket=echo, store=store))
    await browser.get()
    async with await browser.connect():
        assert (await browser.get("/later")).status == 503
        store.is_away = False
        assert (await browser.get("/look")).text == "{'n': 1}"


async def test_what_a_websocket_wrote_meanwhile_is_not_taken_back_with_it(
    browser: Browser, store: Store, websocket: Call, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_away = True
    websocket.give("websocket.receive", text="mine")
    await websocket.next()
    await wait_until(lambda: "a session was not written: away" in caplog.text)
    assert (await browser.get("/count")).status == 503
    store.is_away = False
    assert (await browser.get("/look")).text == "{'n': 1, 'cart': ['tea'], 'mine': True}"


async def test_a_list_that_a_websocket_could_not_save_yet_can_be_read(store: Store) -> None:
    async def fill(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            websocket.session["cart"].append(text)
            await websocket.send_text("added")

    browser = Browser(served(PAGES, websocket=fill, store=store))
    await browser.get("/add")
    async with await browser.connect() as websocket:
        store.is_away = True
        websocket.give("websocket.receive", text="milk")
        await websocket.next()
        answer = await browser.get("/size")
        assert (answer.status, answer.text) == (200, "2")
        store.is_away = False
    assert (await Browser(served(PAGES, store=store), **browser.cookies).get("/size")).text == "2"


@pytest.mark.usefixtures("websocket")
async def test_of_two_requests_that_changed_one_field_none_is_told_that_it_is_done(
    browser: Browser, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both wait for the store at once; the first takes the field back under the second."""
    answer, saving = asyncio.Event(), []
    write, save = store.write, Session.save

    async def slow(*arguments: object, **options: object) -> None:
        await answer.wait()
        if store.is_away:
            raise SessionUnavailable("away")
        await write(*arguments, **options)

    async def seen(session: Session) -> None:
        saving.append(session)
        await save(session)

    monkeypatch.setattr(store, "write", slow)
    monkeypatch.setattr(Session, "save", seen)
    async with browser.begin("/count") as one, browser.begin("/count") as other:
        store.is_away = True
        await wait_until(lambda: len(saving) == 2)
        answer.set()
        assert [(await call.answer()).status for call in (one, other)] == [503, 503]
        await one.end()
        await other.end()
    store.is_away = False
    assert (await browser.get("/look")).text == WAS


@pytest.mark.parametrize("path", ["/count", "/add"])
async def test_a_queue_for_writes_keeps_them_and_nothing_is_taken_back(path: str, store: Store) -> None:
    browser = Browser(served(PAGES, websocket=echo, store=store, store_down="queue"))
    await browser.get("/count")
    await browser.get("/add")
    async with await browser.connect():
        store.is_away = True
        assert [(await browser.get(path)).status for _ in range(2)] == [200, 200]
    store.is_away = False
    n, items = (3, 1) if path == "/count" else (1, 3)
    assert (await browser.get("/look")).text == str({"n": n, "cart": ["tea"] * items})


# A session that has ended


async def ended(request: Request, store: Store) -> None:
    request.session["late"] = True
    await store.end(request.session.id, 1000)


async def test_who_writes_to_a_session_that_ended_meanwhile_is_answered_409(store: Store) -> None:
    async def write(request: Request) -> str:
        await ended(request, store)
        return "done"

    browser = Browser(served({"/": count, "/write": write}, store=store))
    await browser.get()
    answer = await browser.get("/write")
    assert (answer.status, answer.text, answer.get("Retry-After")) == (409, "the session has ended\n", None)
    assert (await browser.get()).text == "1"


@pytest.mark.parametrize("can_deny", [True, False])
async def test_so_is_a_handshake_if_the_server_can(can_deny: bool, store: Store) -> None:
    async def write(websocket: WebSocket) -> None:
        await ended(websocket, store)  # type: ignore[arg-type]
        await websocket.accept()

    browser = Browser(served(count, websocket=write, store=store))
    await browser.get()
    async with browser.open(can_deny=can_deny) as call:
        if can_deny:
            assert (await call.answer()).status == 409
        else:
            assert (await call.next())["type"] == "websocket.close"
        await call.end()
