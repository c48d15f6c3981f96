"""Where each kind of client goes and why, and that who belongs to a slot stays there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_visitors import (
    ELSEWHERE,
    IP,
    LIFETIME,
    OLDER,
    ROOM,
    SESSION,
    WALL,
    new_router,
    routed,
    slot_states,
    views,
    visitor,
)

from stickygw.routing.load import Load
from stickygw.routing.rendezvous import owner, ranked
from stickygw.routing.router import Route, RouteReason, SlotView
from stickygw.types import SessionId, Slot

# --- the signed cookie ------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", range(4))
def test_cookie_leads_to_its_slot(slot: int) -> None:
    route = routed(new_router(), visitor(slot=slot))

    assert (route.slot, route.reason, route.cookie_slot, route.key) == (slot, RouteReason.COOKIE, None, None)
    assert route.claim is not None
    assert route.claim.session == SESSION


def test_cookie_leads_to_its_slot_even_if_that_is_restarting_or_full() -> None:
    assert routed(new_router(), visitor(slot=2), views(down=[2], full=[2])).slot == 2


def test_cookie_whose_slot_is_gone_follows_its_session_and_is_rewritten() -> None:
    route = routed(new_router(), visitor(slot=9))

    assert route.slot == owner(SESSION.encode(), [Slot(number) for number in range(4)])
    assert (route.reason, route.cookie_slot) == (RouteReason.SESSION_HASH, route.slot)


def test_cookie_of_another_gateway_follows_its_session_and_stays_as_it_is() -> None:
    route = routed(new_router(), visitor(slot=1, gateway=ELSEWHERE, age=LIFETIME * 0.9))

    assert route.slot == owner(SESSION.encode(), [Slot(number) for number in range(4)])
    assert (route.reason, route.cookie_slot) == (RouteReason.SESSION_HASH, None)


def test_cookie_is_not_renewed_for_its_age_so_that_its_lifetime_is_absolute() -> None:
    assert routed(new_router(), visitor(slot=2, age=LIFETIME - 1)).cookie_slot is None


def test_cookie_by_an_older_key_is_renewed() -> None:
    assert routed(new_router(), visitor(slot=2, secret=OLDER)).cookie_slot == 2


def test_forged_or_expired_cookie_is_a_first_visit() -> None:
    for request in (visitor(slot=2, secret=b"f" * 32), visitor(slot=2, age=LIFETIME + 1)):
        route = routed(new_router(), request)
        assert (route.reason, route.claim, route.cookie_slot) == (RouteReason.LEAST_LOADED, None, route.slot)


# --- other keys -------------------------------------------------------------------------------------


def test_new_key_goes_where_its_hash_says() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))

    assert route.key == b"header:X-Room\x00lobby"
    assert route.slot == owner(route.key, [Slot(number) for number in range(4)])
    assert (route.reason, route.cookie_slot) == (RouteReason.KEY_HASH, route.slot)


def test_new_key_passes_over_a_slot_far_above_the_mean() -> None:
    router = new_router("header:X-Room")
    first, second = ranked(b"header:X-Room\x00lobby", [Slot(number) for number in range(4)])[:2]

    route = routed(router, visitor(ROOM), views(**{f"s{first}": 50}))

    assert (route.slot, route.reason) == (second, RouteReason.KEY_BOUNDED)


def test_known_key_stays_where_it_is_through_load_and_scaling() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))
    assert router.connected(route, 0) == route.key

    for slots in (views(**{f"s{route.slot}": 1000}), views(32), views(down=[route.slot], full=[route.slot])):
        again = routed(router, visitor(ROOM), slots)
        assert (again.slot, again.reason) == (route.slot, RouteReason.KEY_TABLE)


def test_key_is_hashed_again_when_its_slot_is_gone() -> None:
    router = new_router("header:X-Room")
    route = Route(Slot(9), RouteReason.KEY_HASH, None, b"header:X-Room\x00lobby", Slot(9))
    router.connected(route, 0)

    again = routed(router, visitor(ROOM))
    assert again.reason is RouteReason.KEY_HASH
    router.connected(again, 0)
    assert routed(router, visitor(ROOM)) == Route(again.slot, RouteReason.KEY_TABLE, None, again.key, again.slot)


def test_key_that_ended_is_forgotten_after_it_lingered() -> None:
    router = new_router("header:X-Room")
    key = router.connected(routed(router, visitor(ROOM)), 0)
    assert key is not None
    router.given_up(key, 0)

    assert router.route(visitor(ROOM), IP, views(), now=59, wall=WALL).reason is RouteReason.KEY_TABLE
    assert router.route(visitor(ROOM), IP, views(), now=60, wall=WALL).reason is RouteReason.KEY_HASH


def test_key_that_the_full_table_does_not_keep_owes_no_end() -> None:
    router = new_router("header:X-Room", limit=0)

    assert router.connected(routed(router, visitor(ROOM)), 0) is None
    assert router.connected(routed(router, visitor()), 0) is None


def test_keyed_route_passes_the_claim_on_and_leaves_the_cookie_alone() -> None:
    router = new_router("header:X-Room")
    slot = routed(router, visitor(ROOM)).slot
    other = Slot((slot + 1) % 4)

    for request in (
        visitor(ROOM, slot=other, age=LIFETIME * 0.9),
        visitor(ROOM, slot=9),
        visitor(ROOM, slot=slot, gateway=ELSEWHERE, age=LIFETIME * 0.9),
        visitor(ROOM, slot=slot),
    ):
        route = routed(router, request)
        assert (route.slot, route.cookie_slot) == (slot, None)
        assert route.claim is not None
        assert route.claim.session == SESSION
    for named in (slot, other):
        renewed = routed(router, visitor(ROOM, slot=named, secret=OLDER))
        assert (renewed.slot, renewed.cookie_slot) == (slot, named)


def test_keys_are_tried_in_order() -> None:
    cookie_first, room_first = new_router("cookie", "header:X-Room"), new_router("header:X-Room", "cookie")
    both = visitor(ROOM, slot=2)

    assert routed(cookie_first, both).reason is RouteReason.COOKIE
    assert routed(room_first, both).reason is RouteReason.KEY_HASH
    assert routed(cookie_first, visitor(ROOM)).reason is RouteReason.KEY_HASH
    assert routed(room_first, visitor(slot=2)).reason is RouteReason.COOKIE


def test_cookie_that_is_no_key_here_does_not_decide_and_is_passed_on() -> None:
    route = routed(new_router("header:X-Room"), visitor(slot=2), views(2))

    assert route.reason is RouteReason.LEAST_LOADED
    assert route.claim is not None
    assert route.cookie_slot is None


# --- a drained slot ---------------------------------------------------------------------------------


def test_cookie_of_a_drained_slot_stays_as_it_is_and_its_client_is_elsewhere_meanwhile() -> None:
    router, slots = new_router(), views(drained=[2])
    route = routed(router, visitor(slot=2), slots)

    assert (route.slot, route.reason, route.cookie_slot) == (2, RouteReason.COOKIE, None)
    other = router.runner_up(route, slots, exclude=[Slot(2)])
    assert other is not None
    assert (other.slot != 2, other.cookie_slot) == (True, None)


def test_session_without_a_slot_of_its_own_gets_none_that_is_drained() -> None:
    home = routed(new_router(), visitor(slot=9)).slot

    for request in (visitor(slot=9), visitor(slot=1, gateway=ELSEWHERE)):
        assert routed(new_router(), request).slot == home
        assert routed(new_router(), request, views(drained=[home])).slot != home
        assert routed(new_router(), request, views(drained=range(4))).slot == home


def test_new_key_gets_no_drained_slot_and_a_known_one_keeps_it() -> None:
    router = new_router("header:X-Room")
    home = routed(router, visitor(ROOM))
    slots = views(drained=[home.slot])

    assert routed(router, visitor(ROOM), slots).slot != home.slot
    router.connected(home, 0)
    again = routed(router, visitor(ROOM), slots)
    assert (again.slot, again.reason) == (home.slot, RouteReason.KEY_TABLE)
    other = router.runner_up(again, slots, exclude=[])
    assert other is not None
    assert other.slot != home.slot


def test_nobody_follows_a_key_to_a_drained_slot() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))
    elsewhere = Slot((route.slot + 1) % 4)
    router.connected(Route(elsewhere, RouteReason.RUNNER_UP, None, route.key, True), 0)

    assert router.followed(route, views()) is not None
    assert router.followed(route, views(drained=[elsewhere])) is None


# --- the least loaded -------------------------------------------------------------------------------


def test_least_loaded_is_the_slot_with_least_to_do_of_those_that_are_there() -> None:
    router = new_router()

    assert router.least_loaded(views(s0=3, s1=1, s2=2, s3=2)) == 1
    assert router.least_loaded(views(s0=3, s1=1, s2=2, s3=2, full=[1])) == 1, "a message needs no room"
    assert router.least_loaded(views(s0=3, s1=1, s2=2, s3=2, down=[1])) == 2
    assert router.least_loaded(views(s0=3, s1=1, s2=2, s3=2, drained=[1, 2])) == 3
    assert router.least_loaded(views(down=[0, 1], drained=[2, 3])) is None


def test_first_visits_and_the_least_loaded_are_by_the_balance_that_is_set() -> None:
    router = new_router(balance=["rss"])
    slots = [
        SlotView(Slot(0), True, False, 9, load=Load(rss=50 << 20)),
        SlotView(Slot(1), True, False, 0, load=Load(rss=500 << 20)),
    ]

    assert {routed(router, visitor(), slots).slot for _ in range(20)} == {0}
    assert router.least_loaded(slots) == 0


def test_runner_up_of_a_first_visit_does_not_lag_if_another_does_not() -> None:
    router = new_router()
    route = routed(router, visitor())

    found = {router.runner_up(route, views(lagging=[1, 2]), exclude=[Slot(0)]) for _ in range(20)}
    assert {other.slot for other in found if other is not None} == {3}


# --- the runner-up ----------------------------------------------------------------------------------


def test_runner_up_of_a_cookie_is_its_sessions_and_writes_no_cookie() -> None:
    router = new_router()
    numbers = [Slot(number) for number in range(4)]
    route = routed(router, visitor(slot=2), views(down=[2]))

    other = router.runner_up(route, views(down=[2]), exclude=[Slot(2)])

    best = next(slot for slot in ranked(SESSION.encode(), numbers) if slot != 2)
    assert other == Route(best, RouteReason.RUNNER_UP, route.claim, None, None)


def test_runner_up_of_a_key_is_the_keys_for_all_who_share_it() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))
    slots = views(down=[route.slot])

    requests = [visitor(ROOM), *(visitor(ROOM, slot=1, session=SessionId(digit * 32)) for digit in "abcdef")]
    found = [router.runner_up(routed(router, request), slots, exclude=[route.slot]) for request in requests]

    assert all(other is not None and other.key == route.key for other in found)
    assert len({other.slot for other in found if other is not None}) == 1


def test_runner_up_of_a_first_visit_is_a_first_visit_and_gets_a_cookie() -> None:
    router = new_router()
    route = routed(router, visitor())

    other = router.runner_up(route, views(), exclude=[route.slot])

    assert other is not None
    assert other.slot != route.slot
    assert (other.reason, other.cookie_slot) == (RouteReason.RUNNER_UP, other.slot)


def test_no_runner_up_where_no_other_slot_is_ready_with_room() -> None:
    router = new_router()
    route = routed(router, visitor(slot=0))

    assert router.runner_up(route, views(down=[1], full=[2]), exclude=[Slot(0), Slot(3)]) is None


def test_detour_keeps_a_key_where_a_worker_has_it_and_takes_any_other_along() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))
    detour = router.runner_up(route, views(), exclude=[route.slot])
    assert detour is not None
    key = router.connected(route, 0)
    assert key is not None
    router.taken(key, route.slot)

    router.connected(detour, 0)
    router.taken(key, detour.slot)
    assert routed(router, visitor(ROOM)).slot == route.slot

    router.ended(key, route.slot, 0)
    assert routed(router, visitor(ROOM)).slot == detour.slot, "who comes next meets those on the detour"


@pytest.mark.parametrize("waiters", [1, 2, 3])
def test_those_who_waited_for_a_dead_slot_and_who_comes_next_meet_at_the_runner_up(waiters: int) -> None:
    router = new_router("header:X-Room")
    home = routed(router, visitor(ROOM)).slot
    while_down = views(down=[home])
    waiting = [routed(router, visitor(ROOM), while_down) for _ in range(waiters)]
    for route in waiting:
        router.connected(route, 0)

    served = []
    for route in waiting:
        detour = router.runner_up(route, while_down, exclude=[home])
        assert detour is not None
        assert route.key is not None
        router.given_up(route.key, 1)
        router.connected(detour, 1)
        router.taken(route.key, detour.slot)
        served.append(detour.slot)

    assert {route.slot for route in waiting} == {home}
    assert len(set(served)) == 1
    assert routed(router, visitor(ROOM)).slot == served[0], "its own slot is back, but nobody of this key is there"


def test_who_still_waits_follows_a_key_that_has_gone_elsewhere_if_there_is_room() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))
    for _ in range(2):
        router.connected(route, 0)
    assert router.followed(route, views()) is None
    detour = router.runner_up(route, views(), exclude=[route.slot])
    assert detour is not None
    assert route.key is not None
    router.given_up(route.key, 0)
    router.connected(detour, 0)

    assert router.followed(route, views()) == detour
    assert router.followed(route, views(down=[detour.slot])) is None
    assert router.followed(route, views(full=[detour.slot])) is None


def test_runner_up_of_a_key_is_where_its_connections_are() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))
    others = [Slot(slot) for slot in range(4) if slot != route.slot]
    first = router.runner_up(route, views(), exclude=[route.slot])
    assert first is not None
    left = next(slot for slot in others if slot != first.slot)
    router.connected(Route(left, RouteReason.RUNNER_UP, None, route.key, True), 0)

    found = router.runner_up(route, views(), exclude=[route.slot])
    assert found is not None
    assert found.slot == left


# --- properties -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(slot_states, min_size=1, max_size=10), st.integers(0, 3))
def test_cookie_is_sticky_whatever_happens_to_the_slots(states: list[list[SlotView]], slot: int) -> None:
    router, request = new_router(), visitor(slot=slot)

    assert {routed(router, request, slots).slot for slots in states} == {slot}


@settings(deadline=None)
@given(st.lists(slot_states, min_size=1, max_size=10))
def test_key_in_use_is_sticky_whatever_happens_to_the_slots(states: list[list[SlotView]]) -> None:
    router, request = new_router("header:X-Room"), visitor(ROOM)
    found = []
    for slots in states:
        route = routed(router, request, slots)
        router.connected(route, 0)
        found.append(route.slot)

    assert len(set(found)) == 1


@settings(deadline=None)
@given(slot_states, st.sets(st.integers(0, 3).map(Slot)), st.sampled_from([None, 1, 9]), st.booleans())
def test_runner_up_can_take_the_client(
    slots: list[SlotView], exclude: set[Slot], slot: int | None, keyed: bool
) -> None:
    router = new_router("header:X-Room", "cookie")
    route = routed(router, visitor(*([ROOM] if keyed else []), slot=slot), slots)
    able = {view.slot for view in slots if view.is_ready and not view.is_full and not view.is_drained} - exclude

    other = router.runner_up(route, slots, exclude=exclude)

    assert (other is None) == (not able)
    if other is not None:
        assert other.slot in able
        assert (other.claim, other.key) == (route.claim, route.key)
