"""`SessionMiddleware` in an application without a gateway: what a request has as its session."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from support.asgi_calls import Browser, running
from support.session_pages import Store, count, id_in, look, served, untouched
from support.valkey import ValkeyServer

from stickygw.asgi import RequestSession, SessionMiddleware
from stickygw.errors import SessionEnded, SessionValueError
from stickygw.sessions.base import Loaded
from stickygw.types import SessionId


@pytest.fixture
def store() -> Store:
    return Store()


async def test_what_a_request_writes_the_next_of_this_client_reads() -> None:
    browser = Browser(served(count))
    assert [(await browser.get()).text for _ in range(3)] == ["1", "2", "3"]


async def test_clients_have_sessions_of_their_own() -> None:
    app = served(count)
    assert [(await Browser(app).get()).text for _ in range(2)] == ["1", "1"]


@pytest.mark.parametrize("page", [untouched, look])
async def test_a_session_that_nobody_wrote_to_is_not_stored_and_costs_no_cookie(page: Any, store: Store) -> None:
    answer = await Browser(served(page, store=store)).get()
    assert answer.cookie is None
    assert (store.ids, store.loads, store.writes) == ([], 0, 0)


async def test_a_session_that_is_only_read_is_not_written() -> None:
    store = Store()
    browser = Browser(served({"/count": count, "/look": look}, store=store))
    await browser.get("/count")
    assert (await browser.get("/look")).text == "{'n': 1}"
    assert store.writes == 1


async def test_a_list_that_was_changed_in_place_is_saved(store: Store) -> None:
    async def shop(request: Request) -> str:
        request.session.setdefault("cart", []).append("tea")
        return str(len(request.session["cart"]))

    browser = Browser(served(shop, store=store))
    assert [(await browser.get()).text for _ in range(3)] == ["1", "2", "3"]


async def test_an_emptied_session_is_still_the_client_s(store: Store) -> None:
    async def clear(request: Request) -> str:
        request.session.clear()
        return "cleared"

    browser = Browser(served({"/count": count, "/clear": clear, "/look": look}, store=store))
    await browser.get("/count")
    await browser.get("/clear")
    assert (await browser.get("/look")).text == "{}"
    assert store.ids == [id_in(browser.cookies["stickygw"])]


async def test_two_requests_at_once_have_one_session_object(store: Store) -> None:
    seen = []
    both = asyncio.Barrier(2)

    async def meet(request: Request) -> str:
        seen.append(request.session.shared)
        async with asyncio.timeout(5):
            await both.wait()
        request.session[request.query_params["field"]] = 1
        async with asyncio.timeout(5):
            await both.wait()
        return " ".join(sorted(request.session))

    browser = Browser(served({"/": count, "/meet": meet}, store=store))
    await browser.get()
    loads = store.loads
    answers = await asyncio.gather(browser.get("/meet?field=a"), browser.get("/meet?field=b"))
    assert seen[0] is seen[1]
    assert [answer.text for answer in answers] == ["a b n"] * 2
    assert store.loads == loads + 1


async def test_a_request_in_the_middle_of_another_sees_what_it_wrote_and_costs_no_load(store: Store) -> None:
    written, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> str:
        request.session["slow"] = True
        written.set()
        await go_on.wait()
        return "done"

    async def quick(request: Request) -> str:
        assert request.session["slow"]
        return str(store.loads)

    browser = Browser(served({"/": count, "/slow": slow, "/quick": quick}, store=store))
    await browser.get()
    async with browser.begin("/slow") as call:
        await written.wait()
        assert (await browser.get("/quick")).text == "1", "the slow one's"
        go_on.set()
        await call.answer()
        await call.end()


# Without autoload


async def test_without_autoload_a_handler_loads_the_session_it_needs(store: Store) -> None:
    async def load(request: Request) -> str:
        await request.session.load()
        return await look(request)

    app = served({"/count": count, "/load": load, "/look": look, "/none": untouched}, store=store, autoload=False)
    browser = Browser(app)
    await browser.get("/count")  # a new one: there is nothing to load
    loads = store.loads
    await browser.get("/none")
    assert store.loads == loads
    with pytest.raises(RuntimeError, match=r"await session\.load\(\)"):
        await browser.get("/look")
    assert (await browser.get("/load")).text == "{'n': 1}"
    assert store.loads == loads + 1


async def test_loads_that_meet_hold_it_once_and_one_that_is_late_not_at_all(store: Store) -> None:
    outcomes = []
    late = asyncio.Event()

    async def both(request: Request) -> str:
        async def load() -> None:
            await late.wait()
            await request.session.load()

        outcomes.append(asyncio.ensure_future(load()))
        await asyncio.gather(request.session.load(), request.session.load())
        return str(request.session["n"])

    app = served({"/": count, "/both": both}, store=store, autoload=lambda scope: scope["path"] == "/")
    browser = Browser(app)
    async with running(app):
        await browser.get()
        assert (await browser.get("/both")).text == "1"
        late.set()
        with pytest.raises(RuntimeError, match="the request is over"):
            await outcomes[0]
        loads = store.loads
        await browser.get()
        assert store.loads == loads + 1, "nobody holds it"


async def test_a_load_that_the_end_of_the_request_finds_under_way_gives_it_back(store: Store) -> None:
    outcomes = []
    answer = asyncio.Event()

    async def leave(request: Request) -> str:
        outcomes.append(asyncio.ensure_future(request.session.load()))
        await asyncio.sleep(0)
        return "left"

    class Slow(Store):
        async def load(self, id: SessionId) -> Loaded | None:
            if outcomes:
                await answer.wait()
            return await super().load(id)

    store = Slow()
    browser = Browser(served({"/": count, "/leave": leave}, store=store, autoload=lambda scope: scope["path"] == "/"))
    await browser.get()
    await browser.get("/leave")
    answer.set()
    with pytest.raises(RuntimeError, match="the request is over"):
        await outcomes[0]
    loads = store.loads
    await browser.get()
    assert store.loads == loads + 1, "nobody holds it"


async def test_a_function_says_which_requests_load_their_session(store: Store) -> None:
    def is_account(scope: dict[str, Any]) -> bool:
        return str(scope["path"]).startswith("/account")

    app = served({"/account": count, "/static": untouched}, store=store, autoload=is_account)
    browser = Browser(app)
    await browser.get("/account")
    loads = store.loads
    await browser.get("/static")
    assert store.loads == loads
    assert (await browser.get("/account")).text == "2"


# What is not as it should be


async def test_what_was_written_before_an_error_is_saved(store: Store) -> None:
    async def fail(request: Request) -> str:
        request.session["before"] = "the error"
        raise ZeroDivisionError

    browser = Browser(served({"/": count, "/fail": fail, "/look": look}, store=store))
    await browser.get()
    with pytest.raises(ZeroDivisionError):
        await browser.get("/fail")
    assert (await browser.get("/look")).text == "{'n': 1, 'before': 'the error'}"


async def test_a_value_that_cannot_be_kept_is_an_error_and_takes_nothing_else_along(store: Store) -> None:
    async def spoil(request: Request) -> str:
        request.session["good"] = "kept"
        request.session["list"].append(object())
        return "not answered"

    async def fill(request: Request) -> str:
        request.session["list"] = ["tea"]
        return "filled"

    browser = Browser(served({"/": fill, "/spoil": spoil, "/look": look}, store=store))
    await browser.get()
    async with browser.begin("/spoil") as call:
        assert (await call.answer()).status == 500
        with pytest.raises(SessionValueError, match="'list'"):
            await call.end()
    assert (await browser.get("/look")).text == "{'list': ['tea'], 'good': 'kept'}"


async def test_a_session_that_others_ended_is_a_new_one_for_the_next_request(store: Store) -> None:
    browser = Browser(served(count, store=store))
    await browser.get()
    first = id_in(browser.cookies["stickygw"])
    await store.end(first, 1000)
    assert (await browser.get()).text == "1"
    assert id_in(browser.cookies["stickygw"]) != first


async def test_a_session_that_ends_under_a_request_raises_where_it_is_written_to(store: Store) -> None:
    async def ended(request: Request) -> str:
        await store.end(request.session.id, 1000)
        with pytest.raises(SessionEnded):
            await request.session.increment("n")
        return str(request.session["n"])

    browser = Browser(served({"/": count, "/ended": ended}, store=store))
    await browser.get()
    assert (await browser.get("/ended")).text == "1", "what was loaded can still be read"


async def test_the_session_is_a_mapping_whose_repr_has_no_credential(store: Store) -> None:
    async def show(request: Request) -> str:
        assert isinstance(request.session, RequestSession)
        return repr(request.session)

    browser = Browser(served({"/": count, "/show": show}, store=store))
    await browser.get()
    text = (await browser.get("/show")).text
    assert id_in(browser.cookies["stickygw"]) not in text
    assert "1 fields" in text


async def test_another_kind_of_scope_is_the_application_s_own() -> None:
    scopes = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    await SessionMiddleware(inner)({"type": "somebody's extension"}, None, None)  # type: ignore[arg-type]
    assert scopes == [{"type": "somebody's extension"}]


# With a server for the store


@pytest.mark.parametrize("protocol", [2, 3])
async def test_over_valkey_the_hash_has_the_fields_and_is_changed_by_others(
    valkey: ValkeyServer, prefix: str, protocol: int
) -> None:
    app = served({"/": count, "/look": look}, store=f"{valkey.url}?protocol={protocol}", prefix=prefix, timeout=10)
    browser = Browser(app)
    async with running(app), Redis.from_url(valkey.url) as redis:
        await browser.get()
        key = f"{prefix}:session:{{{id_in(browser.cookies['stickygw'])}}}"
        assert await redis.hget(key, "n") == b"\x01"
        await redis.hset(key, "n", b"\x29")
        assert (await browser.get()).text == "42"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the connections of a loop that has ended cannot be closed
def test_over_valkey_each_request_may_have_a_loop_of_its_own(valkey: ValkeyServer, prefix: str) -> None:
    client = TestClient(served(count, store=valkey.url, prefix=prefix, timeout=10))
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]
    del client
    gc.collect()  # here, where the warnings are expected


def test_in_memory_each_request_may_have_a_loop_of_its_own(store: Store) -> None:
    client = TestClient(served(count, store=store))
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]


async def test_a_stream_reads_the_session_until_its_end() -> None:
    async def stream(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for _ in range(3):
                yield str(request.session["n"])

        return StreamingResponse(body())

    browser = Browser(served({"/": count, "/stream": stream}))
    await browser.get()
    assert (await browser.get("/stream")).text == "111"
