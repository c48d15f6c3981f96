"""`request.session` by Starlette, by starsessions and by us: what is the same for all applications, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from support.asgi_calls import Browser, running
from support.session_kinds import (
    TTL,
    Implementation,
    Step,
    login,
    logout,
    ours_in_memory,
    ours_in_redis,
    starlette_s,
    starsessions_s,
)


@pytest.fixture(params=["starlette", "starsessions", "ours-memory", "ours-redis"])
async def theirs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> AsyncIterator[Implementation]:
    if request.param == "ours-redis":
        made = ours_in_redis(request.getfixturevalue("valkey").url, prefix)
    elif request.param == "starlette":
        made = starlette_s(monkeypatch)
    else:
        made = {"starsessions": starsessions_s, "ours-memory": ours_in_memory}[request.param]()
    async with running(made.app):
        yield made


def fields(request: Any) -> dict[str, Any]:
    return dict(request.session)


def put(**given: Any) -> Step:
    """Writes these fields."""
    return lambda request: request.session.update(given)


def done(call: Callable[[Any], Any]) -> Step:
    """Does this with the session itself, and answers what came of it."""
    return lambda request: call(request.session)


# What is the same

NESTED = {"list": [1, 2.5, "three", None, True], "dict": {"in": {"depth": ["x"]}}}

SAME: dict[str, tuple[Sequence[Step], Any]] = {
    "what is set is there": ([put(a=1), fields], {"a": 1}),
    "what is set again is the later": ([put(a=1), put(a=2), fields], {"a": 2}),
    "each request adds to it": ([put(a=1), put(b=2), put(c=3), fields], {"a": 1, "b": 2, "c": 3}),
    "what JSON can say keeps its types": ([put(**NESTED), fields], NESTED),
    "text is Unicode": ([put(name="Ådå 🦉 \x00"), fields], {"name": "Ådå 🦉 \x00"}),
    "what is not there is a default": ([done(lambda s: s.get("a", "none"))], "none"),
    "pop takes it away": ([put(a=1, b=2), done(lambda s: s.pop("a")), fields], {"b": 2}),
    "pop answers what was there": ([put(a=1), done(lambda s: s.pop("a"))], 1),
    "pop of nothing is a default": ([put(b=1), done(lambda s: s.pop("a", 7))], 7),
    "pop of nothing changes nothing": ([put(b=1), done(lambda s: s.pop("a", 7)), fields], {"b": 1}),
    "del takes it away": ([put(a=1, b=2), done(lambda s: s.__delitem__("a")), fields], {"b": 2}),
    "clear empties it": ([put(a=1), done(lambda s: s.clear()), fields], {}),
    "what was emptied can be filled": ([put(a=1), done(lambda s: s.clear()), put(b=2), fields], {"b": 2}),
    "setdefault sets": ([put(b=1), done(lambda s: s.setdefault("a", 1)), fields], {"b": 1, "a": 1}),
    "setdefault keeps": ([put(a=1), done(lambda s: s.setdefault("a", 2)), fields], {"a": 1}),
    "a nested value that is assigned again is kept": (
        [put(cart=["tea"]), done(lambda s: s.__setitem__("cart", [*s["cart"], "milk"])), fields],
        {"cart": ["tea", "milk"]},
    ),
    "an empty one is false": ([done(lambda s: bool(s))], False),
    "one with a field is true": ([put(a=None), done(lambda s: bool(s))], True),
    "in and len": ([put(a=1), done(lambda s: ["a" in s, "b" in s, len(s)])], [True, False, 1]),
    "iteration is over the names": ([put(a=1, b=2), done(lambda s: sorted(s))], ["a", "b"]),
    "keys, values and items": (
        [put(a=1), done(lambda s: [list(s.keys()), list(s.values()), [list(item) for item in s.items()]])],
        [["a"], [1], [["a", 1]]],
    ),
}


@pytest.mark.parametrize("fact", SAME)
async def test_it_is_the_same(theirs: Implementation, fact: str) -> None:
    steps, expected = SAME[fact]
    assert await theirs.visit(Browser(theirs.app), *steps) == expected


async def test_what_is_missing_is_a_key_error(theirs: Implementation) -> None:
    with pytest.raises(KeyError):
        await theirs.visit(Browser(theirs.app), done(lambda s: s["a"]))


async def test_clients_have_nothing_in_common(theirs: Implementation) -> None:
    one, two = Browser(theirs.app), Browser(theirs.app)
    await theirs.visit(one, put(a=1))
    await theirs.visit(two, put(b=2))
    assert await theirs.visit(one, fields) == {"a": 1}
    assert await theirs.visit(two, fields) == {"b": 2}


async def test_who_writes_nothing_gets_no_cookie(theirs: Implementation) -> None:
    assert (await theirs.answer(Browser(theirs.app), fields)).cookie is None


async def test_the_cookie_is_for_no_script_and_no_other_site_and_as_long_as_it_lives(theirs: Implementation) -> None:
    cookie = (await theirs.answer(Browser(theirs.app), put(a=1))).cookie
    assert cookie is not None
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} < attributes
    assert any(attribute in attributes for attribute in (f"max-age={TTL}", f"max-age={TTL - 1}"))


@pytest.mark.parametrize("spoil", [lambda v: "x" + v, lambda v: v[1:], lambda v: v[:20], lambda v: "", lambda v: "a.b"])
async def test_a_cookie_that_was_tampered_with_gives_an_empty_session(
    theirs: Implementation, spoil: Callable[[str], str]
) -> None:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(user="ada"))
    browser.cookies = {name: spoil(value) for name, value in browser.cookies.items()}
    assert await theirs.visit(browser, fields) == {}


async def test_a_websocket_sees_what_http_wrote(theirs: Implementation) -> None:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(a=1))
    assert await theirs.visit_by_websocket(browser, fields) == {"a": 1}


async def test_a_login_and_a_logout_are_seen_by_the_next_request(theirs: Implementation) -> None:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(cart=1), login(theirs))
    assert await theirs.visit(browser, fields) == {"cart": 1, "user": "ada"}
    assert await theirs.visit(browser, logout(theirs), fields) == {}


# What is not


Question = Callable[[Implementation], Awaitable[bool]]


async def is_change_in_place_kept(theirs: Implementation) -> bool:
    steps = [put(cart=["tea"]), done(lambda s: s["cart"].append("milk")), done(lambda s: len(s["cart"]) == 2)]
    return bool(await theirs.visit(Browser(theirs.app), *steps))


async def is_datetime_kept(theirs: Implementation) -> bool:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    try:
        return bool(await theirs.visit(Browser(theirs.app), put(at=now), done(lambda s: s["at"] == now)))
    except TypeError:
        return False


async def is_written_by_websockets(theirs: Implementation) -> bool:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(a=1))
    await theirs.visit_by_websocket(browser, put(b=2))
    return await theirs.visit(browser, fields) == {"a": 1, "b": 2}


async def is_written_by_streams(theirs: Implementation) -> bool:
    def streaming(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            request.session["b"] = 2
            yield "null"

        return StreamingResponse(body())

    return await theirs.visit(Browser(theirs.app), put(a=1), streaming, fields) == {"a": 1, "b": 2}


async def is_each_of_two_requests_at_once_kept(theirs: Implementation) -> bool:
    both = asyncio.Barrier(2)

    def writing(field: str) -> Step:
        async def write(request: Request) -> None:
            async with asyncio.timeout(5):
                await both.wait()
                request.session[field] = True
                await both.wait()

        return write

    browser = Browser(theirs.app)
    await theirs.visit(browser, put(a=True))
    steps = [writing("b"), writing("c")]
    await asyncio.gather(*(theirs.visit(browser, step) for step in steps))
    return set(await theirs.visit(browser, fields)) == {"a", "b", "c"}


async def is_a_copied_cookie_worthless_after_logout(theirs: Implementation) -> bool:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(user="ada"))
    copied = Browser(theirs.app, **browser.cookies)
    await theirs.visit(browser, logout(theirs))
    return await theirs.visit(copied, fields) == {}


async def is_a_planted_cookie_worthless_after_login(theirs: Implementation) -> bool:
    planted = Browser(theirs.app)
    await theirs.visit(planted, put(planted=True))
    victim = Browser(theirs.app, **planted.cookies)
    await theirs.visit(victim, login(theirs))
    return await theirs.visit(planted, fields) == {}


async def is_out_of_the_client_s_sight(theirs: Implementation) -> bool:
    small, large = Browser(theirs.app), Browser(theirs.app)
    await theirs.visit(small, put(text="x"))
    await theirs.visit(large, put(text="x" * 1000))
    return len(str(small.cookies)) == len(str(large.cookies))


async def is_told_once(theirs: Implementation) -> bool:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(a=1))
    return (await theirs.answer(browser, fields)).cookie is None


async def is_over_when_it_was_not_used_for_its_life(theirs: Implementation) -> bool:
    browser = Browser(theirs.app)
    await theirs.visit(browser, put(a=1))
    await theirs.age(TTL + 1)
    return await theirs.visit(browser, fields) == {}


async def is_varied_by_cookie_where_it_was_asked(theirs: Implementation) -> bool:
    browser = Browser(theirs.app)
    asked, not_asked = await theirs.answer(browser, fields), await theirs.answer(browser, lambda request: None)
    return (asked.get("Vary"), not_asked.get("Vary")) == ("Cookie", None)


async def is_kept_from_shared_caches(theirs: Implementation) -> bool:
    return (await theirs.answer(Browser(theirs.app), put(a=1))).get("Cache-Control") == "private"


async def is_secure_by_the_request_s_scheme(theirs: Implementation) -> bool:
    answers = [await theirs.answer(Browser(theirs.app, is_tls=is_tls), put(a=1)) for is_tls in (False, True)]
    return ["secure" in (answer.cookie or "").lower() for answer in answers] == [False, True]


DIFFERENT: dict[Question, set[str]] = {
    is_change_in_place_kept: {"starsessions", "ours"},  # Starlette writes what was assigned
    is_datetime_kept: {"ours"},  # the others keep JSON
    is_written_by_websockets: {"ours"},  # the others write when the head of an HTTP answer leaves, and not later
    is_written_by_streams: {"ours"},
    is_each_of_two_requests_at_once_kept: {"ours"},  # the others write all fields, so the later takes the other's away
    is_a_copied_cookie_worthless_after_logout: {"starsessions", "ours"},  # Starlette has nothing to delete
    is_a_planted_cookie_worthless_after_login: {"ours"},  # starsessions leaves what is stored under the old id
    is_out_of_the_client_s_sight: {"starsessions", "ours"},  # Starlette's is in the cookie
    is_told_once: {"starlette", "ours"},  # starsessions sets its cookie in each answer
    is_over_when_it_was_not_used_for_its_life: {"starlette", "ours"},  # starsessions leaves that to browser and Redis
    is_varied_by_cookie_where_it_was_asked: {"starlette", "ours"},
    is_kept_from_shared_caches: {"ours"},
    is_secure_by_the_request_s_scheme: {"ours"},  # the others: by an option, the same for all requests
}


@pytest.mark.parametrize("question", DIFFERENT, ids=lambda question: question.__name__)
async def test_it_differs_on_purpose(theirs: Implementation, question: Question) -> None:
    assert await question(theirs) is (theirs.kind in DIFFERENT[question])
