"""Where newcomers go: to whom they are no burden, to a fresh worker a few at first, and what cannot be told before."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from routing_visitors import IP, new_router, routed, slot_states, views, visitor

from stickygw.routing.first_visit import ByAddress, FirstVisit, LeastLoaded, RoundRobin
from stickygw.routing.load import DEFAULT_BALANCE, Load, SlotView, parse_balance
from stickygw.routing.router import Route, RouteReason
from stickygw.types import Slot

WAYS = ["least_loaded", "round_robin", "ip"]


def no_chance(below: int) -> int:
    raise AssertionError("nothing is left to chance here")


def least_loaded(*balance: str) -> LeastLoaded:
    return LeastLoaded(parse_balance(balance) if balance else DEFAULT_BALANCE, random.Random(1).randrange)


def chosen(way: FirstVisit, slots: Sequence[SlotView], *, times: int) -> Counter[int]:
    return Counter(way.choose(slots, IP) for _ in range(times))


# --- the ways ---------------------------------------------------------------------------------------
def test_first_visits_fill_the_slots_evenly() -> None:
    router, loads = new_router(), Counter[int]()
    for _ in range(400):
        route = routed(router, visitor(), views(**{f"s{slot}": count for slot, count in loads.items()}))
        assert route == Route(route.slot, RouteReason.LEAST_LOADED, None, None, route.slot)
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


def test_of_two_slots_the_one_whose_worker_has_less_to_do_is_taken() -> None:
    idle, busy = views(2, s0=50, s1=40)
    busy = SlotView(busy.slot, True, False, 40, load=Load(lag=0.2))

    assert chosen(least_loaded(), [idle, busy], times=20) == {0: 20}
    assert chosen(least_loaded("connections"), [idle, busy], times=20) == {1: 20}
    assert chosen(least_loaded("connections:9", "lag"), [idle, busy], times=20) == {1: 20}


# --- who is passed over -----------------------------------------------------------------------------


def best_of(slots: Sequence[SlotView], *, minds_lag: bool) -> set[Slot]:
    """The slots that newcomers may get: said once more, and in another way."""
    best = min(standing(view, minds_lag=minds_lag) for view in slots)
    return {view.slot for view in slots if standing(view, minds_lag=minds_lag) == best}


def standing(view: SlotView, *, minds_lag: bool) -> tuple[bool, bool, bool, bool]:
    """The lower the better. Where nobody is handed over, since it is drained or full, being ready does not matter."""
    is_away = not (view.is_ready or view.is_drained or view.is_full)
    return view.is_drained, view.is_full, is_away, minds_lag and view.is_lagging


@settings(deadline=None)
@given(slot_states)
@pytest.mark.parametrize("first_visit", WAYS)
def test_newcomers_get_no_slot_that_is_drained_closed_or_lagging_if_there_is_a_better(
    first_visit: str, slots: list[SlotView]
) -> None:
    best = best_of(slots, minds_lag=first_visit != "ip")
    way = new_router(first_visit=first_visit).first_visit

    assert {way.choose(slots, f"192.0.2.{number}") for number in range(5)} <= best


def test_an_address_keeps_its_slot_while_that_lags() -> None:
    way = ByAddress()

    home = way.choose(views(), IP)
    assert way.choose(views(lagging=[home]), IP) == home
    assert way.choose(views(drained=[home]), IP) != home


# --- slow start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 0.75, 1.0])
def test_a_fresh_slot_gets_its_share_of_what_it_would_get(share: float) -> None:
    two = chosen(least_loaded(), views(2, s0=100, fresh={1: share}), times=4000)
    four = chosen(least_loaded(), views(4, s0=100, s1=100, s2=100, fresh={3: share}), times=4000)

    assert two[1] == pytest.approx(4000 * share, abs=150), "it is in every pair, and the emptier one"
    assert four[3] == pytest.approx(2000 * share, abs=150), "it is in half of the pairs"


def test_the_fresher_of_two_fresh_slots_stands_back_as_often_as_its_share_is_smaller() -> None:
    found = chosen(least_loaded(), views(2, s0=9, fresh={0: 0.4, 1: 0.1}), times=4000)

    assert found[1] == pytest.approx(1000, abs=150)


def test_slots_that_are_equally_fresh_or_alone_do_not_stand_back() -> None:
    fresh = {0: 0.01, 1: 0.01}

    assert chosen(least_loaded(), views(2, s0=1, fresh=fresh), times=20) == {1: 20}
    assert chosen(least_loaded(), views(2, down=[0], fresh=fresh), times=20) == {1: 20}
    assert chosen(RoundRobin(no_chance), views(2, fresh=fresh), times=20) == {0: 10, 1: 10}


def test_a_fresh_slot_that_has_more_to_do_gets_nothing_by_its_share() -> None:
    assert chosen(least_loaded(), views(2, s1=50, fresh={1: 0.5}), times=50) == {0: 50}


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 1.0])
def test_round_robin_gives_a_fresh_slot_its_share_of_its_turns(share: float) -> None:
    found = chosen(RoundRobin(random.Random(1).randrange), views(4, fresh={2: share}), times=4000)

    assert found[2] / found[1] == pytest.approx(share, abs=0.1)
    assert found[0] == pytest.approx(found[1], abs=5)


# --- what can be foreseen ---------------------------------------------------------------------------


@settings(deadline=None)
@given(slot_states)
@pytest.mark.parametrize(
    "make", [lambda: LeastLoaded(DEFAULT_BALANCE, no_chance), lambda: RoundRobin(no_chance), ByAddress]
)
def test_what_is_foreseen_comes_without_chance_and_is_not_used_up(
    make: type[FirstVisit], slots: list[SlotView]
) -> None:
    way = make()

    for _ in range(3):
        foreseen = [way.foreseen(slots, IP) for _ in range(2)]
        if foreseen[0] is None:
            assert len(way.candidates(slots)) > 1
            return
        assert [*foreseen, way.choose(slots, IP)] == [foreseen[0]] * 3
        assert foreseen[0] in {view.slot for view in way.candidates(slots)}
