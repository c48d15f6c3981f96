"""Routes by ids that an application has minted: before all other keys where they are known, after them where not."""

from __future__ import annotations

import pytest
from routing_heads import head
from routing_visitors import IP, WALL, new_router, routed, views, visitor

from stickygw.routing.explain import explain
from stickygw.routing.router import Route, Router, RouteReason
from stickygw.types import Slot

MCP = ("Mcp-Session-Id", "m1")
LEARN = "header:mcp-session-id"
KEY = b"header:mcp-session-id\x00m1"


def learnt_in(slot: int, *keys: str) -> Router:
    router = new_router(*keys, learn=[LEARN])
    assert router.learn(KEY, Slot(slot), 0.0)
    return router


@pytest.mark.parametrize("slot", range(4))
def test_learnt_id_wins_over_the_cookie_and_every_key(slot: int) -> None:
    route = routed(learnt_in(slot, "header:X-User", "cookie"), visitor(MCP, ("X-User", "u"), slot=(slot + 1) % 4))
    assert (route.slot, route.reason, route.key, route.cookie_slot) == (slot, RouteReason.KEY_TABLE, KEY, None)


def test_unknown_id_leaves_the_decision_to_the_other_keys_and_decides_without_them() -> None:
    router = new_router(learn=[LEARN])
    assert routed(router, visitor(MCP, slot=3)).reason is RouteReason.COOKIE

    first = routed(router, visitor(MCP))
    assert first.reason is RouteReason.KEY_HASH
    assert routed(router, visitor(MCP)).slot == first.slot


def test_learnt_id_waits_for_its_slot_and_goes_to_the_hash_when_the_slot_is_gone() -> None:
    router = learnt_in(3)
    assert routed(router, visitor(MCP), views(4, down=[3])).slot == 3
    assert routed(router, visitor(MCP), views(3)).reason is RouteReason.KEY_HASH


def test_learnt_kind_that_is_a_key_too_is_one_key_and_comes_first() -> None:
    router = new_router("cookie", LEARN, "ip", learn=[LEARN, "engineio"])
    assert [key.text for key in router.keys] == [LEARN, "query:sid", "cookie", "ip"]


def test_who_waits_for_a_learnt_slot_follows_no_detour() -> None:
    router = learnt_in(1)
    slots = views(4, down=[1])
    waiting = routed(router, visitor(MCP), slots)
    detour = router.runner_up(waiting, slots, exclude=[Slot(1)])
    assert isinstance(detour, Route)
    router.connected(detour, 0)
    router.taken(KEY, detour.slot)

    assert router.followed(waiting, views()) is None
    assert routed(router, visitor(MCP)).slot == 1


def test_engineio_id_is_looked_for_in_the_query() -> None:
    router = new_router(learn=["engineio"])
    router.learn(b"query:sid\x00s1", Slot(2), 0.0)
    assert routed(router, head(target="/socket.io/?EIO=4&sid=s1")).slot == 2


@pytest.mark.parametrize(
    ("keys", "given", "word"),
    [
        (("cookie",), "m1", "header:mcp-session-id: this key is in use, or was until a moment ago, at slot 2, or was"),
        (("header:X-User",), "m1", "header:mcp-session-id: this key is in use"),
        (("header:X-User",), "u1", "header:X-User: this key is new here"),
        (("cookie",), "m2", "header:mcp-session-id: this key is new here"),
    ],
)
def test_key_that_is_told_is_of_the_kind_that_knows_it_or_else_of_the_first_that_clients_choose(
    keys: tuple[str, ...], given: str, word: str
) -> None:
    told = explain(learnt_in(2, *keys), cookie=None, ip=IP, key=given, slots=views(), now=0.0, wall=WALL)
    assert any(step.startswith(word) for step in told.steps), told.steps
