"""Builders of routers, slots and visitors for the routing tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hypothesis import strategies as st
from routing_heads import head

from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.routing.keys import parse_key
from stickygw.routing.learning import parse_learn
from stickygw.routing.load import Load, SlotView, parse_balance
from stickygw.routing.request_head import Head
from stickygw.routing.router import Route, Router
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
    *keys: str,
    first_visit: str = "least_loaded",
    secrets: Sequence[bytes] = (SECRET, OLDER),
    limit: int = 100,
    chance: Callable[[int], int] | None = None,
    balance: Sequence[str] = ("connections", "lag"),
    learn: Sequence[str] = (),
) -> Router:
    return Router(
        gateway=HERE,
        keys=[parse_key(text) for text in keys or ("cookie",)],
        first_visit=first_visit,
        cookie_name="stickygw",
        cookie_keys=CookieKeys(secrets),
        cookie_lifetime=LIFETIME,
        table=KeyTable(limit, linger=60),
        random=chance or random.Random(1).randrange,
        balance=parse_balance(balance),
        learnt=[parse_learn(text).key for text in learn],
    )


def views(
    count: int = 4,
    *,
    down: Sequence[int] = (),
    full: Sequence[int] = (),
    drained: Sequence[int] = (),
    lagging: Sequence[int] = (),
    fresh: Mapping[int, float] | None = None,
    **loads: int,
) -> list[SlotView]:
    """`count` slots, of which some are not ready, full, drained, lagging, or have a smaller share; `s2=7` says that
    slot 2 has 7 connections."""
    return [
        SlotView(
            Slot(number),
            is_ready=number not in down,
            is_full=number in full,
            connections=loads.get(f"s{number}", 0),
            is_drained=number in drained,
            is_lagging=number in lagging,
            share=(fresh or {}).get(number, 1.0),
        )
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


loads = st.builds(Load, st.floats(0, 10), st.integers(0, 10_000), st.floats(0, 4), st.integers(0, 1 << 32))
slot_states = st.lists(
    st.builds(
        SlotView,
        st.just(Slot(0)),
        is_ready=st.booleans(),
        is_full=st.booleans(),
        connections=st.integers(0, 100),
        is_drained=st.booleans(),
        is_lagging=st.booleans(),
        share=st.one_of(st.just(1.0), st.floats(0.001, 1)),
        load=loads,
    ),
    min_size=4,
    max_size=4,
).map(lambda row: [replace(view, slot=Slot(number)) for number, view in enumerate(row)])
"""Four slots in any state."""
