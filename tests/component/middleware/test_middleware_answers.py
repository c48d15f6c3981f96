"""`SessionMiddleware` without a gateway: a session is saved before its answer's head leaves, or that does not leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from support.asgi_calls import Browser
from support.session_pages import Store, count, id_in, look, served, untouched


@pytest.fixture
def store() -> Store:
    return Store()


# Before the head leaves


async def test_who_has_seen_the_head_finds_all_that_was_written_before_it(store: Store) -> None:
    go_on = asyncio.Event()

    async def stream(request: Request) -> Response:
        await count(request)

        async def body() -> AsyncIterator[str]:
            yield "."
            await go_on.wait()

        return StreamingResponse(body())

    browser = Browser(served({"/stream": stream, "/look": look}, store=store))
    async with browser.begin("/stream") as call:
        head = await call.next()
        cookie = dict(head["headers"])[b"set-cookie"].decode()
        stored = await store.load(id_in(cookie))
        assert stored is not None
        assert stored.fields == {"n": b"\x01"}
        other_process = Browser(served(look, store=store), stickygw=cookie.partition(";")[0].partition("=")[2])
        assert (await other_process.get()).text == "{'n': 1}"
        go_on.set()
        await call.end()


async def test_what_a_stream_writes_is_saved_at_its_end(store: Store) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            for step in range(3):
                request.session["step"] = step
                yield "."

        return StreamingResponse(body())

    browser = Browser(served({"/": count, "/stream": stream, "/look": look}, store=store))
    await browser.get()
    assert (await browser.get("/stream")).cookie is None
    assert (await browser.get("/look")).text == "{'n': 1, 'step': 2}"
    assert store.writes == 2


async def test_a_stream_can_save_by_hand(store: Store) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            request.session["step"] = 1
            await request.session.save()
            loaded = await store.load(request.session.id)
            assert loaded is not None
            yield str("step" in loaded.fields)

        return StreamingResponse(body())

    browser = Browser(served({"/": count, "/stream": stream}, store=store))
    await browser.get()
    assert (await browser.get("/stream")).text == "True"


async def test_a_new_session_that_only_a_stream_writes_to_is_an_error_and_not_stored(store: Store) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "."
            request.session["late"] = True

        return StreamingResponse(body())

    async with Browser(served(stream, store=store)).begin() as call:
        assert (await call.answer()).cookie is None
        with pytest.raises(RuntimeError, match="before the answer begins"):
            await call.end()
    assert store.ids == []


# The store is away


async def test_a_session_that_cannot_be_loaded_is_answered_503(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser(served({"/": count, "/none": untouched}, store=store))
    await browser.get()
    store.is_away = True
    for path in ("/", "/none"):
        answer = await browser.get(path)
        assert (answer.status, answer.get("Retry-After"), answer.cookie) == (503, "1", None)
    assert "a request is refused: away" in caplog.text
    store.is_away = False
    assert (await browser.get()).text == "2"


async def test_who_has_no_session_is_served_while_the_store_is_away(store: Store) -> None:
    store.is_away = True
    browser = Browser(served({"/look": look, "/none": untouched}, store=store))
    assert [(await browser.get(path)).status for path in ("/look", "/none")] == [200, 200]


async def test_without_autoload_who_needs_no_session_is_served_while_the_store_is_away(store: Store) -> None:
    browser = Browser(served({"/": count, "/none": untouched}, store=store, autoload=False))
    await browser.get()
    store.is_away = True
    assert (await browser.get("/none")).status == 200


async def test_an_answer_whose_session_was_not_saved_is_503_instead(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def pay(request: Request) -> Response:
        request.session["paid"] = True
        store.is_away = True
        return StreamingResponse(iter(["thank ", "you"]), headers={"X-Paid": "yes"})

    browser = Browser(served({"/": count, "/pay": pay, "/look": look}, store=store))
    await browser.get()
    answer = await browser.get("/pay")
    assert (answer.status, answer.get("Retry-After"), answer.get("X-Paid")) == (503, "1", None)
    assert b"thank" not in answer.body
    assert "taken back" in caplog.text
    store.is_away = False
    assert (await browser.get("/look")).text == "{'n': 1}"


async def test_so_it_is_with_a_new_one_and_its_client_gets_no_cookie(store: Store) -> None:
    browser = Browser(served(count, store=store))
    store.is_away = True
    answer = await browser.get()
    assert (answer.status, answer.cookie) == (503, None)
    store.is_away = False
    assert (await browser.get()).text == "1"


async def test_a_stream_whose_end_cannot_be_saved_is_told_to_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "."
            request.session["late"] = True
            store.is_away = True

        return StreamingResponse(body())

    browser = Browser(served({"/": count, "/stream": stream}, store=store))
    await browser.get()
    assert (await browser.get("/stream")).status == 200
    assert "a session was not written: away" in caplog.text


async def test_a_request_that_asked_nothing_is_not_answered_for_what_another_could_not_save(store: Store) -> None:
    written, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> str:
        request.session["slow"] = True
        written.set()
        await go_on.wait()
        return "done"

    browser = Browser(served({"/": count, "/slow": slow, "/none": untouched}, store=store))
    await browser.get()
    async with browser.begin("/slow") as call:
        await written.wait()
        store.is_away = True
        assert (await browser.get("/none")).status == 200
        go_on.set()
        assert (await call.answer()).status == 503
        await call.end()


async def test_a_session_that_was_destroyed_meanwhile_is_not_written_behind_it(store: Store) -> None:
    async def outlived(request: Request) -> str:
        request.session["late"] = True
        await store.end(request.session.id, 1000)
        return "done"

    browser = Browser(served({"/": count, "/outlived": outlived}, store=store))
    await browser.get()
    assert (await browser.get("/outlived")).status == 409
    assert store.ids == []
    assert (await browser.get()).text == "1"


# The application raises


async def test_an_error_in_a_stream_saves_what_was_written(store: Store) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "."
            request.session["late"] = True
            raise ZeroDivisionError

        return StreamingResponse(body())

    browser = Browser(served({"/": count, "/stream": stream, "/look": look}, store=store))
    await browser.get()
    with pytest.raises(ZeroDivisionError):
        await browser.get("/stream")
    assert (await browser.get("/look")).text == "{'n': 1, 'late': True}"


async def test_a_client_that_goes_away_loses_nothing_that_was_written(store: Store) -> None:
    written = asyncio.Event()

    async def slow(request: Request) -> str:
        request.session["late"] = True
        written.set()
        await asyncio.Event().wait()
        return "never"

    browser = Browser(served({"/": count, "/slow": slow, "/look": look}, store=store))
    await browser.get()
    async with browser.begin("/slow"):
        await written.wait()
    assert (await browser.get("/look")).text == "{'n': 1, 'late': True}"
