"""What `why` says is what the router does, and asking changes nothing and gives no credential away."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_heads import head
from routing_visitors import (
    ELSEWHERE,
    HERE,
    IP,
    LIFETIME,
    ROOM,
    SECRET,
    SESSION,
    WALL,
    new_router,
    routed,
    slot_states,
    views,
    visitor,
)

from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.routing.explain import MAX_LISTED, Explanation, explain
from stickygw.routing.keys import MAX_KEY_BYTES
from stickygw.routing.load import Load, SlotView
from stickygw.routing.router import Route, Router, RouteReason
from stickygw.types import GatewayId, SessionId, Slot

OTHER_SESSION = SessionId("7" * 32)


def no_chance(below: int) -> int:
    raise AssertionError("asking draws no number")


def asked(
    router: Router,
    slots: Sequence[SlotView] | None = None,
    *,
    cookie: str | None = None,
    ip: str | None = None,
    key: str | None = None,
) -> Explanation:
    return explain(router, cookie=cookie, ip=ip, key=key, slots=slots or views(), now=0.0, wall=WALL)


def signed(
    slot: int,
    *,
    session: SessionId = SESSION,
    gateway: GatewayId = HERE,
    age: float = 0,
    secret: bytes = SECRET,
) -> str:
    return CookieKeys([secret]).sign(CookieClaim(session, gateway, Slot(slot), int(WALL - age)))


# --- it is what the router does ---------------------------------------------------------------------

key_lists = st.lists(
    st.sampled_from(["cookie", "header:X-Room", "cookie:sid", "ip"]), min_size=1, max_size=4, unique=True
)
cookies = st.one_of(
    st.none(),
    st.builds(
        signed,
        st.integers(0, 6),
        session=st.sampled_from([SESSION, OTHER_SESSION]),
        gateway=st.sampled_from([HERE, ELSEWHERE]),
        age=st.sampled_from([0, LIFETIME + 1]),
        secret=st.sampled_from([SECRET, b"f" * 32]),
    ),
)


@settings(deadline=None)
@given(
    st.sampled_from(["least_loaded", "round_robin", "ip"]),
    key_lists,
    cookies,
    st.sampled_from(["192.0.2.7", "2001:db8::1"]),
    st.none() | st.sampled_from(["lobby", "", "x" * (MAX_KEY_BYTES + 1)]),
    st.none() | st.integers(0, 5),
    st.lists(slot_states, min_size=1, max_size=3),
)
def test_what_is_told_is_what_is_done(
    first_visit: str,
    keys: list[str],
    cookie: str | None,
    ip: str,
    room: str | None,
    room_slot: int | None,
    states: list[list[SlotView]],
) -> None:
    router = new_router(*keys, first_visit=first_visit)
    if room_slot is not None:
        router.connected(Route(Slot(room_slot), RouteReason.KEY_HASH, None, b"header:X-Room\x00lobby", True), 0)
    others = [text for text in keys if text != "cookie"]
    key = room if others[:1] == ["header:X-Room"] else None
    fields = [("Cookie", f"a=b; stickygw={cookie}")] if cookie is not None else []
    if key is not None:
        fields.append(("X-Room", key))

    for slots in states:
        explanation = explain(router, cookie=cookie, ip=ip, key=key, slots=slots, now=0.0, wall=WALL)
        route = routed(router, head(extra=fields), slots, ip=ip)
        assert explanation.reason == route.reason
        if explanation.slot is None:
            assert first_visit in ("least_loaded", "round_robin")
            assert route.reason in (RouteReason.LEAST_LOADED, RouteReason.ROUND_ROBIN)
        else:
            assert explanation.slot == route.slot


@settings(deadline=None)
@given(
    st.sampled_from(["least_loaded", "round_robin", "ip"]),
    st.sampled_from([("cookie",), ("header:X-Room", "cookie")]),
    cookies,
    st.none() | st.just("lobby"),
    slot_states,
)
def test_asking_changes_nothing(
    first_visit: str, keys: tuple[str, ...], cookie: str | None, key: str | None, slots: list[SlotView]
) -> None:
    router = new_router(*keys, first_visit=first_visit, limit=1, chance=no_chance)

    first, second = (asked(router, slots, cookie=cookie, ip=IP, key=key) for _ in range(2))

    assert first == second
    another = Route(Slot(0), RouteReason.KEY_HASH, None, b"header:X-Room\x00attic", True)
    assert router.connected(another, 0), "the table has room for one, so no key was kept"


@settings(deadline=None)
@given(cookies, slot_states)
def test_no_session_signature_or_key_is_repeated(cookie: str | None, slots: list[SlotView]) -> None:
    router = new_router("cookie:sid", "header:X-Room", "cookie", first_visit="ip")
    line = f"Cookie: theme=dark; sid=hunter2; stickygw={cookie}"

    for explanation in (asked(router, slots, cookie=cookie, key="hunter2"), asked(router, slots, cookie=line)):
        told = " ".join(explanation.steps)
        assert SESSION[:5] not in told
        assert OTHER_SESSION[:5] not in told
        assert "hunter2" not in told
        assert cookie is None or cookie.rpartition(".")[2][:5] not in told


# --- how it is said ---------------------------------------------------------------------------------


def test_a_cookie_that_leads_to_its_slot() -> None:
    explanation = asked(new_router(), cookie=signed(2, age=600))

    assert explanation == Explanation(
        Slot(2),
        "cookie",
        [
            "affinity keys, in the order in which they are tried: cookie",
            "the cookie is genuine: session 5555…, gateway ours, slot 2, issued 10 min ago",
            "the cookie names slot 2, which exists",
            "slot 2 is ready",
            "it goes to slot 2 (cookie)",
        ],
    )


@pytest.mark.parametrize(
    "line", ["{}", " {}\n", "stickygw={}", "Cookie: a=b; stickygw={}; c=d", "cookie: a=b\r\nCookie: stickygw={}\n"]
)
def test_a_cookie_comes_as_its_value_or_in_whole_lines(line: str) -> None:
    assert asked(new_router(), cookie=line.format(signed(2))).reason == "cookie"


@pytest.mark.parametrize(
    ("cookie", "sentence"),
    [
        ("", "there is no cookie called stickygw"),
        ("theme=dark", "there is no cookie called stickygw"),
        ("nonsense", "the cookie is not genuine: wrong signature"),
        ("кука", "the cookie is not genuine: wrong signature"),
        (signed(2)[:-1], "the cookie is not genuine: wrong signature"),
        (signed(2, secret=b"f" * 32), "the cookie is not genuine: wrong signature"),
        (signed(2, age=LIFETIME + 1), "the cookie is genuine, but expired: it was issued more than 17 min ago"),
        (signed(9), "the cookie's slot does not exist now: the session's hash says slot"),
        (signed(2, gateway=ELSEWHERE), "session 5555…, gateway another (0000bbbb), slot 2, issued 0 s ago"),
        (signed(2, gateway=ELSEWHERE), "another gateway's slots mean nothing here: the session's hash says slot"),
        (signed(2, age=-60), "slot 2, issued in the future"),
        (
            f"stickygw={signed(1, age=9)}; stickygw={signed(2)}",
            "of 2 cookies the newest genuine one counts: session 5555…",
        ),
        (f"stickygw={signed(1)}; stickygw={signed(1, session=OTHER_SESSION)}", "another one for another session"),
        ("stickygw=x;" * 9, "9 cookies are called stickygw; of more than 8 none counts"),
        (signed(2, secret=b"o" * 32), "it goes to slot 2 (cookie), and its cookie is written anew"),
    ],
)
def test_what_is_said_of_a_cookie(cookie: str, sentence: str) -> None:
    assert [step for step in asked(new_router(), cookie=cookie).steps if sentence in step]


@pytest.mark.parametrize(
    ("slots", "sentences"),
    [
        (views(down=[2]), ["slot 2 is not ready", "it waits there up to slot_wait, then goes to slot {} (runner_up)"]),
        (views(full=[2]), ["slot 2 is full", "it does not wait there, and goes to slot {} (runner_up)"]),
        (
            views(drained=[2], down=[2]),
            ["slot 2 is drained, not ready", "it does not wait there, and goes to slot {} (runner_up)"],
        ),
        (
            views(down=range(4)),
            ["slot 2 is not ready", "it waits there up to slot_wait, then is answered 503: no other can take it"],
        ),
        (views(lagging=[2]), ["slot 2 is lagging", "it goes to slot 2 (cookie)"]),
    ],
)
def test_what_happens_where_the_slot_cannot_take_it(slots: list[SlotView], sentences: list[str]) -> None:
    router = new_router()
    other = router.runner_up(routed(router, visitor(slot=2), slots), slots, exclude=[Slot(2)])

    explanation = asked(router, slots, cookie=signed(2))
    assert explanation.slot == 2
    assert explanation.steps[-2:] == [text.format(other.slot if other else None) for text in sentences]


def test_what_is_said_of_a_key() -> None:
    router = new_router("header:X-Room", "cookie")
    home = routed(router, visitor(ROOM)).slot

    assert f"header:X-Room: this key is new here, and its hash says slot {home}" in asked(router, key="lobby").steps
    crowded = asked(router, views(**{f"s{home}": 99}), key="lobby")
    assert crowded.reason == "key_bounded"
    assert f"so it goes to the next best, slot {crowded.slot}" in crowded.steps[1]
    router.connected(Route(Slot(3), RouteReason.KEY_HASH, None, b"header:X-Room\x00lobby", True), 0)
    in_use = asked(router, key="lobby", cookie=signed(1))
    assert (in_use.slot, in_use.reason) == (3, "key_table")
    absent = asked(router, cookie=signed(1))
    assert "header:X-Room: none is given; a request that has it goes by it" in absent.steps
    assert absent.slot == 1


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_BYTES + 1)])
def test_a_key_that_is_none(key: str) -> None:
    explanation = asked(new_router("header:X-Room"), key=key)

    assert "header:X-Room: one that is empty or longer than 512 bytes is no key" in explanation.steps
    assert explanation.reason == "least_loaded"


def test_a_key_where_none_is_set() -> None:
    assert [step for step in asked(new_router(), key="lobby").steps if "the key that is given decides nothing" in step]


def test_a_first_visit_names_those_who_compete_and_those_who_do_not() -> None:
    slots = views(5, drained=[1], lagging=[2], full=[3], s0=3)
    slots[4] = SlotView(Slot(4), True, False, 1, share=0.4, load=Load(0.012, 7, 0.25, 90 << 20))

    explanation = asked(new_router(), slots)

    assert (explanation.slot, explanation.reason) == (None, "least_loaded")
    assert explanation.steps[1:] == [
        "it belongs to no slot yet: a first visit",
        "of two random slots the one with the lower score by connections, lag takes it; one that is fresh stands back "
        "as often as its share is smaller than the other's",
        "slot 4 (ready): 1 connections, lag 0.012 s, queue 7, cpu 25%, rss 90 MiB, share 40%; score 0.938",
        "slot 0 (ready): 3 connections, lag 0.000 s, queue 0, cpu 0%, rss 0 MiB, share 100%; score 1.062",
        "passed over: slot 1 (drained), slot 2 (lagging), slot 3 (full)",
    ]


def test_a_first_visit_that_has_no_choice() -> None:
    explanation = asked(new_router(chance=no_chance), views(down=[0, 1, 3]))

    assert (explanation.slot, explanation.steps[-1]) == (2, "it goes to slot 2 (least_loaded)")
    assert "slot 2 is the only one that takes newcomers now" in explanation.steps


def test_a_turn_is_told_and_not_taken() -> None:
    router = new_router(first_visit="round_robin")

    assert [asked(router).slot for _ in range(3)] == [0, 0, 0]
    assert routed(router, visitor()).slot == 0
    assert asked(router).slot == 1
    fresh = asked(router, views(fresh={1: 0.25}))
    assert fresh.slot is None
    assert "slot 1: share 25%" in fresh.steps


def test_without_an_address_its_hash_is_not_guessed() -> None:
    router = new_router(first_visit="ip")

    assert asked(router).slot is None
    assert asked(router, ip=IP).slot == routed(router, visitor()).slot


def test_of_many_slots_some_are_told() -> None:
    steps = asked(new_router(), views(100)).steps

    assert len(steps) == 3 + MAX_LISTED + 1
    assert steps[-1] == "and 84 more"
