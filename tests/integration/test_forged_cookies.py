"""Whatever is done to a victim's cookie, whoever brings it is a new visitor, and the victim's session stays as it was.

WebSockets and plain requests alike; beside this, `test_cookies` has what WebSockets alone show.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.client import gather_bounded
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Answer, Raw, exchange, frame, head, upgrade

from stickygw.routing.cookie import CookieClaim, CookieKeys

COUNTING = f"{Path(__file__).parent / 'apps' / 'counting.py'}:app"
LIFETIME = 90 * 86_400
NEWEST, OLDER, REMOVED = (secrets.token_bytes(32).hex().encode() for _ in range(3))
AT_ONCE = 20
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

OWN = {"victim": 1, "shared": 1}
"""What the victim has in its session."""
FIRST = {"forger": 1, "shared": 1}
"""What a new visitor has after its first round."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    environment = {"STICKYGW_SECRET": f"{NEWEST.decode()},{OLDER.decode()}"}
    with Gateway(COUNTING, workers=2, environment=environment) as gateway:
        yield gateway
        log = whole_log(gateway)
        assert "Traceback" not in log
        assert "ERROR" not in log


@dataclass(frozen=True)
class Visitor:
    """What the gateway took somebody for: the status, the cookie it sets, the fields of the session."""

    status: int
    cookie: str | None
    fields: dict[str, Any] | None

    @property
    def is_refused(self) -> bool:
        """Whether it was told that its request is none."""
        return self.status == 400 and self.cookie is None

    @property
    def id(self) -> str:
        """The session's, as the cookie says that was set."""
        assert self.cookie is not None
        return self.cookie.split(".")[2]


Visit = Callable[..., Awaitable[Visitor]]


async def by_websocket(gateway: Gateway, *cookies: str, own: str = "forger") -> Visitor:
    """Connect with these Cookie fields and write to the session, unless `own` is empty."""
    async with Raw(gateway.port) as raw:
        fields = [("Cookie", cookie) for cookie in cookies]
        await raw.send(upgrade("/", fields=fields) + frame(own))
        answer = await raw.answer_head()
        if answer.status != 101:
            return Visitor(answer.status, answer.cookie, None)
        said = await raw.next_frame()
    assert said is not None
    return Visitor(101, answer.cookie, fields_in(bytes(said.data)))


async def by_request(gateway: Gateway, *cookies: str, own: str = "forger") -> Visitor:
    """Write to the session with a request, unless `own` is empty, and read it with another."""
    answer = await requested(gateway, f"/rounds?own={own}&rounds=1" if own else "/fields", cookies)
    if answer.status != 200 or not own:
        return Visitor(answer.status, answer.cookie, fields_in(answer.body) if answer.status == 200 else None)
    read = await requested(gateway, "/fields", cookies if answer.cookie is None else [answer.cookie])
    return Visitor(answer.status, answer.cookie, fields_in(read.body))


async def requested(gateway: Gateway, target: str, cookies: Any) -> Answer:
    fields = [*(("Cookie", cookie) for cookie in cookies), ("Connection", "close")]
    return await exchange(gateway.port, head("GET", target, fields=fields))


def fields_in(body: bytes) -> dict[str, Any]:
    return {field: value for field, value in json.loads(body).items() if field != "slot"}


@pytest.fixture(params=[by_websocket, by_request])
def visit(request: pytest.FixtureRequest) -> Visit:
    """Both ways to come."""
    way: Visit = request.param
    return way


@pytest.fixture
async def victim(gateway: Gateway) -> AsyncIterator[Visitor]:
    """Somebody with something in their session, which nobody else has written to at the end."""
    victim = await by_websocket(gateway, own="victim")
    assert victim.fields == OWN
    assert victim.cookie is not None
    yield victim
    for way in (by_websocket, by_request):
        assert (await way(gateway, victim.cookie, own="")).fields == OWN


def value_of(visitor: Visitor) -> str:
    assert visitor.cookie is not None
    return visitor.cookie.partition("=")[2]


def claim_of(visitor: Visitor) -> CookieClaim:
    claim = CookieKeys([NEWEST, OLDER]).verify(value_of(visitor).encode(), now=time.time(), lifetime=LIFETIME)
    assert claim is not None
    return claim


def assert_new(visitor: Visitor, *others: Visitor) -> None:
    assert visitor.status in (101, 200), visitor
    assert visitor.fields == FIRST
    assert visitor.id not in {other.id for other in others}


async def test_a_cookie_with_any_bit_flipped_is_none(gateway: Gateway, victim: Visitor, visit: Visit) -> None:
    value = value_of(victim)
    refused: set[int] = set()
    ids: set[str] = {victim.id}

    async def flipped(place: int, bit: int) -> None:
        changed = bytearray(value.encode())
        changed[place] ^= 1 << bit
        visitor = await visit(gateway, f"stickygw={changed.decode('latin-1')}")
        if visitor.is_refused:
            refused.add(changed[place])
        else:
            assert_new(visitor, victim)
            ids.add(visitor.id)

    flips = [flipped(place, bit) for place in range(len(value)) for bit in range(8)]
    await gather_bounded(AT_ONCE, *flips)
    assert len(flips) == 8 * len(value) > 800
    assert all(byte < 0x20 or byte >= 0x7F for byte in refused), "what no field may hold, and nothing else, is refused"
    assert len(ids) > 0.8 * len(flips), "each is a visitor of its own"


async def test_a_cookie_truncated_at_any_length_is_none(gateway: Gateway, victim: Visitor, visit: Visit) -> None:
    value = value_of(victim)
    cut = await gather_bounded(AT_ONCE, *(visit(gateway, f"stickygw={value[:end]}") for end in range(len(value))))
    assert len({visitor.id for visitor in cut}) == len(value)
    for visitor in cut:
        assert_new(visitor, victim)


async def test_a_cookie_with_another_last_character_is_none(gateway: Gateway, victim: Visitor, visit: Visit) -> None:
    # Four of these decode to the same signature.
    value = value_of(victim)
    others = [last for last in URL_SAFE if last != value[-1]]
    assert len(others) == 63
    for visitor in await gather_bounded(AT_ONCE, *(visit(gateway, f"stickygw={value[:-1]}{last}") for last in others)):
        assert_new(visitor, victim)


async def test_a_cookie_that_is_too_old_or_of_a_key_that_is_gone_is_none(
    gateway: Gateway, victim: Visitor, visit: Visit
) -> None:
    claim = claim_of(victim)
    too_old = replace(claim, issued=int(time.time()) - LIFETIME - 60)
    for cookie in (CookieKeys([NEWEST]).sign(too_old), CookieKeys([OLDER]).sign(too_old)):
        assert_new(await visit(gateway, f"stickygw={cookie}"), victim)
    assert_new(await visit(gateway, f"stickygw={CookieKeys([REMOVED]).sign(claim)}"), victim)


async def test_a_cookie_of_the_older_key_is_the_visitor_s_and_is_signed_anew(
    gateway: Gateway, victim: Visitor, visit: Visit
) -> None:
    older = CookieKeys([OLDER]).sign(claim_of(victim))
    again = await visit(gateway, f"stickygw={older}", own="")
    assert again.fields == OWN
    assert again.id == victim.id
    renewed = value_of(again).encode()
    assert CookieKeys([NEWEST]).verify(renewed, now=time.time(), lifetime=LIFETIME) == claim_of(victim)


async def test_of_two_visitors_cookies_none_counts(gateway: Gateway, victim: Visitor, visit: Visit) -> None:
    other = await visit(gateway)
    both = [str(visitor.cookie) for visitor in (victim, other)]
    for cookies in (both, both[::-1], ["; ".join(both)], ["; ".join(both[::-1])]):
        assert_new(await visit(gateway, *cookies), victim, other)


async def test_cookies_in_great_number_or_size_are_none(gateway: Gateway, victim: Visitor, visit: Visit) -> None:
    mine = str(victim.cookie)
    hundred = [f"stickygw=x{number}" for number in range(99)]
    for cookies in (["; ".join([*hundred, mine])], ["; ".join([mine, *hundred])], [mine] * 9):
        assert_new(await visit(gateway, *cookies), victim)
    assert (await visit(gateway, *[mine] * 100)).status == 431, "a head of 12 KB is none"
    for long in ("v" * 4096, value_of(victim) + "A" * 4096, "A" * 4096 + value_of(victim)):
        assert_new(await visit(gateway, f"stickygw={long}"), victim)
