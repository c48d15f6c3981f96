"""`SessionMiddleware` without a gateway: when a client is told of its session by a cookie, and which it believes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from support.asgi_calls import Browser
from support.session_pages import Store, cookie_of, count, id_in, look, served, untouched

from stickygw.asgi import SessionMiddleware
from stickygw.sessions.registry import new_session_id

OLD = "an older secret, from before the rotation"
NEW = "a newer secret, which signs from now on"
DAY = 86_400


@pytest.fixture
def store() -> Store:
    return Store()


# Its attributes


async def test_a_cookie_is_for_this_host_and_no_script_and_as_long_as_its_lifetime() -> None:
    cookie = (await Browser(served(count)).get()).cookie
    assert cookie is not None
    assert cookie.partition("; ")[2] == "Path=/; HttpOnly; SameSite=Lax; Max-Age=7776000"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cookie_name": "sid"}, r"sid=[^;]+; Path=/; HttpOnly; SameSite=Lax; Max-Age=\d+"),
        ({"domain": "example.com"}, r".*; Path=/; Domain=example.com; HttpOnly; .*"),
        ({"path": "/app"}, r".*; Path=/app; HttpOnly; .*"),
        ({"same_site": "Strict"}, r".*; SameSite=Strict; .*"),
        ({"lifetime": 3600, "ttl": 600}, r".*; Max-Age=3600"),
        ({"same_site": "None"}, r".*; SameSite=None; .*; Secure"),
        ({"partitioned": True}, r".*; Secure; Partitioned"),
        ({"cookie_name": "__Host-sid"}, r"__Host-sid=[^;]+; Path=/; .*; Secure"),
        ({"cookie_name": "__Secure-sid"}, r"__Secure-sid=.*; Secure"),
    ],
)
async def test_an_option_is_in_the_cookie(options: dict[str, Any], expected: str) -> None:
    cookie = (await Browser(served(count, **options)).get()).cookie
    assert re.fullmatch(expected, cookie or ""), cookie


@pytest.mark.parametrize(
    ("is_tls", "https_only", "is_secure"),
    [(False, None, False), (True, None, True), (False, True, True), (True, True, True), (True, False, False)],
)
async def test_it_is_secure_by_the_request_s_scheme_or_as_the_option_says(
    is_tls: bool, https_only: bool | None, is_secure: bool
) -> None:
    cookie = (await Browser(served(count, https_only=https_only), is_tls=is_tls).get()).cookie
    assert cookie is not None
    assert cookie.endswith("; Secure") is is_secure


async def test_a_session_s_id_is_stored_under_no_name_but_the_cookie_s(store: Store) -> None:
    cookie = (await Browser(served(count, store=store)).get()).cookie
    assert store.ids == [id_in(cookie)]


# When there is one


async def test_who_has_told_of_its_session_is_not_told_again() -> None:
    browser = Browser(served(count))
    assert [(await browser.get()).cookie is not None for _ in range(3)] == [True, False, False]


async def test_a_response_with_a_cookie_is_kept_from_shared_caches() -> None:
    answer = await Browser(served(count)).get()
    assert (answer.get("Cache-Control"), answer.get("Vary")) == ("private", "Cookie")


@pytest.mark.parametrize("control", ["no-store", "private, max-age=60", "Private"])
async def test_one_that_is_kept_from_them_already_stays_as_it_is(control: str) -> None:
    async def own(request: Request) -> Response:
        return PlainTextResponse(await count(request), headers={"Cache-Control": control})

    answer = await Browser(served(own)).get()
    assert answer.cookie is not None
    assert answer.get("Cache-Control") == control


@pytest.mark.parametrize("control", ["public, max-age=60", "s-maxage=60"])
async def test_a_response_for_shared_caches_has_no_cookie_and_a_new_session_is_given_up_there(
    control: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def public(request: Request) -> Response:
        return PlainTextResponse(await count(request), headers={"Cache-Control": control})

    store = Store()
    async with Browser(served(public, store=store)).begin() as call:
        answer = await call.answer()
        assert (answer.cookie, answer.get("Cache-Control")) == (None, control)
        await call.end()
    assert store.ids == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "public" in caplog.text


@pytest.mark.parametrize("fails", [True, False])
async def test_what_an_application_writes_and_then_gives_no_answer_is_stored_for_nobody(
    store: Store, caplog: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    async def writes(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = 1
        if fails:
            raise LookupError("the application's own")

    app = SessionMiddleware(writes, secret=NEW, store=store)
    scope = {"type": "http", "headers": [], "scheme": "http", "path": "/"}
    if fails:
        with pytest.raises(LookupError):
            await app(scope, never, never)
    else:
        await app(scope, never, never)
    assert store.ids == []
    assert "a new session is lost for its client" in caplog.text


async def never(*_: Any) -> Any:
    raise AssertionError("nobody asked")


async def test_only_an_answer_that_asked_the_session_varies_by_cookie() -> None:
    browser = Browser(served({"/": count, "/look": look, "/none": untouched}))
    assert (await browser.get("/none")).get("Vary") is None
    assert (await browser.get("/look")).get("Vary") == "Cookie"
    await browser.get()
    assert (await browser.get("/none")).get("Vary") is None, "one that is known and loaded"
    assert (await browser.get("/look")).get("Vary") == "Cookie"


@pytest.mark.parametrize(
    ("vary", "expected"),
    [("Accept", "Accept, Cookie"), ("Accept, cookie", "Accept, cookie"), ("*", "*"), ("X-Cookie", "X-Cookie, Cookie")],
)
async def test_vary_names_cookie_once(vary: str, expected: str) -> None:
    async def varied(request: Request) -> Response:
        return PlainTextResponse(await look(request), headers={"Vary": vary})

    assert (await Browser(served(varied)).get()).get("Vary") == expected


async def test_cookies_of_the_application_stay_beside_ours() -> None:
    async def two(request: Request) -> Response:
        answer = PlainTextResponse(await count(request))
        answer.set_cookie("theme", "dark")
        return answer

    cookies = (await Browser(served(two)).get()).cookies
    assert [line.partition("=")[0] for line in cookies] == ["theme", "stickygw"]


# Which are believed


def _flipped(value: str) -> str:
    return value[:-1] + ("A" if value[-1] != "A" else "B")


@pytest.mark.parametrize(
    "spoiled",
    [
        "",
        "nonsense",
        "x" * 4096,
        _flipped(cookie_of(new_session_id())),
        cookie_of(new_session_id())[:-1],
        cookie_of(new_session_id(), secret="a secret that signs at somebody else's"),
        cookie_of(new_session_id(), age=91 * DAY),
    ],
    ids=["empty", "nonsense", "4 KiB", "last character", "truncated", "another's secret", "older than its lifetime"],
)
async def test_a_cookie_that_does_not_hold_is_answered_with_a_new_session(spoiled: str, store: Store) -> None:
    answer = await Browser(served(count, store=store), stickygw=spoiled).get()
    assert (answer.status, answer.text) == (200, "1")
    assert store.ids == [id_in(answer.cookie)]
    assert store.loads == 0, "no id of it was asked for"


async def test_of_two_cookies_for_two_sessions_none_counts(store: Store) -> None:
    browser, other = Browser(served(count, store=store)), Browser(served(count, store=store))
    await browser.get()
    await other.get()
    browser.cookies[" stickygw"] = other.cookies["stickygw"]  # a neighbouring host can set one for ours
    assert (await browser.get()).text == "1"


async def test_a_cookie_by_an_older_key_counts_and_is_renewed_with_its_first_date(store: Store) -> None:
    before = Browser(served(count, store=store, secret=OLD))
    await before.get()
    id = id_in(before.cookies["stickygw"], OLD)
    app = served({"/": count, "/none": untouched}, store=store, secret=[NEW, OLD])
    browser = Browser(app, stickygw=cookie_of(id, age=10 * DAY, secret=OLD))
    answer = await browser.get("/none")
    assert answer.cookie is not None
    assert id_in(answer.cookie, NEW) == id
    assert int(answer.cookie.rpartition("Max-Age=")[2]) == pytest.approx(80 * DAY, abs=5)
    answer = await browser.get()
    assert (answer.text, answer.cookie) == ("2", None), "it is renewed once"


async def test_a_public_response_does_not_renew_one(store: Store) -> None:
    async def public(request: Request) -> Response:
        return PlainTextResponse("same for all", headers={"Cache-Control": "public"})

    app = served({"/": public, "/count": count}, store=store, secret=[NEW, OLD])
    id = new_session_id()
    browser = Browser(app, stickygw=cookie_of(id, secret=OLD))
    assert (await browser.get()).cookie is None
    assert (await browser.get("/count")).cookie is not None


async def test_a_cookie_by_a_key_that_was_removed_is_worthless(store: Store) -> None:
    browser = Browser(served(count, store=store, secret=OLD))
    await browser.get()
    later = Browser(served(count, store=store, secret=NEW), **browser.cookies)
    answer = await later.get()
    assert answer.text == "1"
    assert id_in(answer.cookie, NEW) != id_in(browser.cookies["stickygw"], OLD)


async def test_a_session_ends_with_its_lifetime_however_much_it_is_used(store: Store) -> None:
    first = Browser(served(count, store=store, lifetime=DAY, ttl=600))
    await first.get()
    id = id_in(first.cookies["stickygw"])
    for age, expected in ((DAY - 5, "2"), (DAY + 1, "1")):
        browser = Browser(served(count, store=store, lifetime=DAY, ttl=600), stickygw=cookie_of(id, age=age))
        assert (await browser.get()).text == expected


async def test_the_cookie_of_an_answer_without_headers_is_there_too() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = 1
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    answer = await Browser(SessionMiddleware(bare, secret=NEW, store=Store())).get()
    assert id_in(answer.cookie, NEW)


async def test_a_streamed_answer_has_its_cookie_in_the_head() -> None:
    async def stream(request: Request) -> Response:
        return StreamingResponse(iter([await count(request)]))

    browser = Browser(served(stream))
    assert [(await browser.get()).text for _ in range(2)] == ["1", "2"]
