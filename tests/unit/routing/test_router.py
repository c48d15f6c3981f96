"""Where each kind of client goes and why, and that who belongs to a slot stays there."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_heads import head

from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.routing.keys import parse_key
from stickygw.routing.rendezvous import owner, ranked
from stickygw.routing.request_head import Head
from stickygw.routing.router import Route, Router, RouteReason, SlotView
from stickygw.routing.table import KeyTable
from stickygw.types import GatewayId, SessionId, Slot

HERE, ELSEWHERE = GatewayId("0000aaaa"), GatewayId("0000bbbb")
SECRET, OLDER = b"n" * 32, b"o" * 32
SESSION = SessionId("5" * 32)
WALL = 1_700_000_000.0
LIFETIME = 1000.0
IP = "192.0.2.7"
ROOM = ("X-Room", "lobby")


def new_router(
    *keys: str, first_visit: str = "least_loaded", secrets: Sequence[bytes] = (SECRET, OLDER), limit: int = 100
) -> Router:
    return Router(
        gateway=HERE,
        keys=[parse_key(text) for text in keys or ("cookie",)],
        first_visit=first_visit,
        cookie_name="stickygw",
        cookie_keys=CookieKeys(secrets),
        cookie_lifetime=LIFETIME,
        table=KeyTable(limit, linger=60),
        random=random.Random(1).randrange,
    )


def views(count: int = 4, *, down: Sequence[int] = (), full: Sequence[int] = (), **loads: int) -> list[SlotView]:
    """`count` slots, of which some are not ready or full; `s2=7` says that slot 2 has 7 connections."""
    return [
        SlotView(Slot(number), number not in down, number in full, loads.get(f"s{number}", 0))
        for number in range(count)
    ]


def visitor(
    *fields: tuple[str, str],
    slot: int | None = None,
    session: SessionId = SESSION,
    gateway: GatewayId = HERE,
    age: float = 0,
    secret: bytes = SECRET,
) -> Head:
    """A handshake with `fields`, and with a signed cookie that names `slot` if one is given."""
    extra = list(fields)
    if slot is not None:
        claim = CookieClaim(session, gateway, Slot(slot), int(WALL - age))
        extra.append(("Cookie", f"stickygw={CookieKeys([secret]).sign(claim)}"))
    return head(extra=extra)


def routed(router: Router, request: Head, slots: Sequence[SlotView] | None = None, *, ip: str = IP) -> Route:
    return router.route(request, ip, slots or views(), now=0.0, wall=WALL)


# --- the signed cookie ------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", range(4))
def test_cookie_leads_to_its_slot(slot: int) -> None:
    route = routed(new_router(), visitor(slot=slot))

    assert (route.slot, route.reason, route.sets_cookie, route.key) == (slot, RouteReason.COOKIE, False, None)
    assert route.claim is not None
    assert route.claim.session == SESSION


def test_cookie_leads_to_its_slot_even_if_that_is_restarting_or_full() -> None:
    assert routed(new_router(), visitor(slot=2), views(down=[2], full=[2])).slot == 2


def test_cookie_whose_slot_is_gone_follows_its_session_and_is_rewritten() -> None:
    route = routed(new_router(), visitor(slot=9))

    assert route.slot == owner(SESSION.encode(), [Slot(number) for number in range(4)])
    assert (route.reason, route.sets_cookie) == (RouteReason.SESSION_HASH, True)


def test_cookie_of_another_gateway_follows_its_session_and_stays_as_it_is() -> None:
    route = routed(new_router(), visitor(slot=1, gateway=ELSEWHERE, age=LIFETIME * 0.9))

    assert route.slot == owner(SESSION.encode(), [Slot(number) for number in range(4)])
    assert (route.reason, route.sets_cookie) == (RouteReason.SESSION_HASH, False)


def test_cookie_is_not_renewed_for_its_age_so_that_its_lifetime_is_absolute() -> None:
    assert not routed(new_router(), visitor(slot=2, age=LIFETIME - 1)).sets_cookie


def test_cookie_by_an_older_key_is_renewed() -> None:
    assert routed(new_router(), visitor(slot=2, secret=OLDER)).sets_cookie


def test_forged_or_expired_cookie_is_a_first_visit() -> None:
    for request in (visitor(slot=2, secret=b"f" * 32), visitor(slot=2, age=LIFETIME + 1)):
        route = routed(new_router(), request)
        assert (route.reason, route.claim, route.sets_cookie) == (RouteReason.LEAST_LOADED, None, True)


# --- other keys -------------------------------------------------------------------------------------


def test_new_key_goes_where_its_hash_says() -> None:
    router = new_router("header:X-Room")
    route = routed(router, visitor(ROOM))

    assert route.key == b"header:X-Room\x00lobby"
    assert route.slot == owner(route.key, [Slot(number) for number in range(4)])
    assert (route.reason, route.sets_cookie) == (RouteReason.KEY_HASH, True)


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
    route = Route(Slot(9), RouteReason.KEY_HASH, None, b"header:X-Room\x00lobby", True)
    router.connected(route, 0)

    again = routed(router, visitor(ROOM))
    assert again.reason is RouteReason.KEY_HASH
    router.connected(again, 0)
    assert routed(router, visitor(ROOM)) == Route(again.slot, RouteReason.KEY_TABLE, None, again.key, True)


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
        assert (route.slot, route.sets_cookie) == (slot, False)
        assert route.claim is not None
        assert route.claim.session == SESSION
    assert routed(router, visitor(ROOM, slot=slot, secret=OLDER)).sets_cookie, "the same slot: a renewal"


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
    assert not route.sets_cookie


# --- first visits -----------------------------------------------------------------------------------


def test_first_visits_fill_the_slots_evenly() -> None:
    router, loads = new_router(), Counter[int]()
    for _ in range(400):
        route = routed(router, visitor(), views(**{f"s{slot}": count for slot, count in loads.items()}))
        assert route == Route(route.slot, RouteReason.LEAST_LOADED, None, None, True)
        loads[route.slot] += 1

    assert min(loads[slot] for slot in range(4)) / max(loads.values()) >= 0.9


def test_of_two_slots_the_one_with_fewer_connections_is_taken() -> None:
    router = new_router()

    assert {routed(router, visitor(), views(2, s0=1)).slot for _ in range(50)} == {1}
    assert {routed(router, visitor(), views(2)).slot for _ in range(50)} == {0, 1}


def test_round_robin_takes_the_slots_in_turn_and_leaves_out_what_is_closed() -> None:
    router = new_router(first_visit="round_robin")
    routes = [routed(router, visitor()) for _ in range(5)]

    assert [route.slot for route in routes] == [0, 1, 2, 3, 0]
    assert {route.reason for route in routes} == {RouteReason.ROUND_ROBIN}
    assert [routed(router, visitor(), views(down=[2])).slot for _ in range(4)] == [1, 3, 0, 1]


def test_ip_sends_one_address_to_one_slot() -> None:
    router = new_router(first_visit="ip")
    slots = {ip: routed(router, visitor(), ip=ip).slot for ip in (f"192.0.2.{host}" for host in range(100))}

    assert set(slots.values()) == {0, 1, 2, 3}
    assert all(routed(router, visitor(), ip=ip).slot == slot for ip, slot in slots.items())
    assert routed(router, visitor()).reason is RouteReason.CLIENT_IP
    assert routed(router, visitor(), ip="").slot in range(4)


@pytest.mark.parametrize("first_visit", ["least_loaded", "round_robin", "ip"])
def test_first_visit_goes_to_a_ready_slot_with_room_if_there_is_one(first_visit: str) -> None:
    router = new_router(first_visit=first_visit)

    for number in range(50):
        ip = f"192.0.2.{number}"
        assert routed(router, visitor(), views(down=[0], full=[1, 2]), ip=ip).slot == 3
        assert routed(router, visitor(), views(down=[0, 3], full=[1, 2]), ip=ip).slot in (0, 3), "it waits"
        assert routed(router, visitor(), views(down=[0], full=range(4)), ip=ip).slot in range(4)


def test_unknown_first_visit_is_refused() -> None:
    with pytest.raises(ValueError, match="least_loaded, round_robin, ip"):
        new_router(first_visit="random")


# --- the runner-up ----------------------------------------------------------------------------------


def test_runner_up_of_a_cookie_is_its_sessions_and_writes_no_cookie() -> None:
    router = new_router()
    numbers = [Slot(number) for number in range(4)]
    route = routed(router, visitor(slot=2), views(down=[2]))

    other = router.runner_up(route, views(down=[2]), exclude=[Slot(2)])

    best = next(slot for slot in ranked(SESSION.encode(), numbers) if slot != 2)
    assert other == Route(best, RouteReason.RUNNER_UP, route.claim, None, False)


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
    assert (other.reason, other.sets_cookie) == (RouteReason.RUNNER_UP, True)


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

slot_states = st.lists(
    st.builds(SlotView, st.just(Slot(0)), st.booleans(), st.booleans(), st.integers(0, 100)), min_size=4, max_size=4
).map(lambda row: [SlotView(Slot(at), view.is_ready, view.is_full, view.connections) for at, view in enumerate(row)])


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
    able = {view.slot for view in slots if view.is_ready and not view.is_full} - exclude

    other = router.runner_up(route, slots, exclude=exclude)

    assert (other is None) == (not able)
    if other is not None:
        assert other.slot in able
        assert (other.claim, other.key) == (route.claim, route.key)
