"""A worker that gives up its slot and the router lead a connection, and its client that comes again, to one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_visitors import SESSION, new_router, routed, views, visitor

from stickygw.routing.home import home_of
from stickygw.routing.load import SlotView
from stickygw.routing.router import RouteReason
from stickygw.types import SessionId, Slot

GONE = Slot(7)
"""The highest of eight slots: the first to be scaled away."""

names = st.text("abcdefgh0123", min_size=1, max_size=12)
sessions = st.integers(0, 2**64).map(lambda number: SessionId(f"{number:032x}"))
load = st.lists(st.integers(0, 500), min_size=8, max_size=8)


def eight(loads: list[int], *, gone: int = 0, drained: tuple[int, ...] = ()) -> list[SlotView]:
    found = views(8, drained=drained)
    for view, connections in zip(found, loads, strict=True):
        view.connections = connections
    return found[: 8 - gone]


@given(name=names, session=sessions, loads=load, is_live=st.booleans())
def test_a_key_whose_slot_is_gone_goes_where_its_worker_has_sent_its_connections(
    name: str, session: SessionId, loads: list[int], is_live: bool
) -> None:
    router = new_router("header:X-Room")
    key = b"header:X-Room\x00" + name.encode()
    router._table.connected(key, GONE, 0.0)
    router._table.taken(key, GONE)
    if not is_live:
        router._table.ended(key, GONE, 0.0)
    slots = eight(loads, gone=1)
    home = home_of(key, session, [view.slot for view in slots])

    route = routed(router, visitor(("X-Room", name)), slots)

    assert (route.slot, route.reason) == (home, RouteReason.KEY_HASH)
    # And when its connections are there, or some of them, it is known there, whatever slots come back.
    router.connected(route, 0.0)
    router.moved(key, GONE, home, 0.0)
    assert routed(router, visitor(("X-Room", name)), eight(loads)).slot == home


@given(name=names, session=sessions, loads=load)
def test_a_key_whose_slot_is_drained_goes_where_its_worker_has_sent_its_connections(
    name: str, session: SessionId, loads: list[int]
) -> None:
    router = new_router("header:X-Room")
    key = b"header:X-Room\x00" + name.encode()
    router._table.connected(key, Slot(3), 0.0)
    router._table.taken(key, Slot(3))
    slots = eight(loads, drained=(3,))
    route = routed(router, visitor(("X-Room", name)), slots)
    if route.slot == 3:  # then the primary asks for another
        detour = router.runner_up(route, slots, exclude=(Slot(3),))
        assert detour is not None
        route = detour
    assert route.slot == home_of(key, session, [view.slot for view in slots if not view.is_drained])


@given(session=sessions, loads=load, is_drained=st.booleans())
def test_a_cookie_whose_slot_is_gone_or_drained_goes_where_the_session_has_been_sent(
    session: SessionId, loads: list[int], is_drained: bool
) -> None:
    router = new_router()
    slots = eight(loads, drained=(7,)) if is_drained else eight(loads, gone=1)
    route = routed(router, visitor(slot=GONE, session=session), slots)
    if is_drained:
        detour = router.runner_up(route, slots, exclude=(GONE,))
        assert detour is not None
        route = detour
    assert route.slot == home_of(None, session, [view.slot for view in slots if not view.is_drained])


@given(session=sessions, key=st.none() | st.binary(min_size=1, max_size=9))
def test_slots_that_go_one_after_another_lead_where_all_at_once_would(session: SessionId, key: bytes | None) -> None:
    def after(slot: Slot, count: int) -> Slot:
        return slot if slot < count else home_of(key, session, map(Slot, range(count)))

    slot = GONE
    for count in (7, 6, 5, 4):
        slot = after(slot, count)
    assert slot == after(GONE, 4)


def test_without_slots_there_is_no_home() -> None:
    with pytest.raises(ValueError, match=r"empty"):
        home_of(None, SESSION, [])
