"""The machine's clock jumps between two visits: whoever has a cookie keeps session and slot, as long as it lives."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.client import Client
from support.gateway import Gateway

from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.types import GatewayId, SessionId, Slot

PROBE = f"{Path(__file__).parents[1] / 'apps' / 'probe.py'}:app"
SECRET = "s" * 40
DAY = 86_400
LIFETIME = 90 * DAY


@pytest.fixture(scope="module")
def gateway():
    with Gateway(PROBE, workers=2, environment={"STICKYGW_SECRET": SECRET}) as gateway:
        yield gateway


def issued_at(cookie: str, seconds_ago: int) -> str:
    """The same cookie, as a gateway whose clock was wrong would have signed it."""
    name, _, value = cookie.partition("=")
    _, _, session, gateway, slot, _, _ = value.split(".")
    claim = CookieClaim(SessionId(session), GatewayId(gateway), Slot(int(slot)), int(time.time()) - seconds_ago)
    return f"{name}={CookieKeys([SECRET.encode()]).sign(claim)}"


async def visits(gateway: Gateway, seconds_ago: int) -> tuple[dict, dict]:
    """Who served a visitor's first visit, and the one with the cookie as issued then."""
    first = Client(gateway.ws_url)
    async with first:
        before = await first.who()
    assert first.cookie is not None
    again = Client(gateway.ws_url)
    again.cookie = issued_at(first.cookie, seconds_ago)
    async with again:
        return before, await again.who()


@pytest.mark.parametrize("seconds_ago", [-10 * 365 * DAY, -DAY, -1, DAY, LIFETIME - DAY])
async def test_a_clock_that_was_set_logs_nobody_out(gateway: Gateway, seconds_ago: int) -> None:
    before, after = await visits(gateway, seconds_ago)
    assert (after["session"], after["slot"]) == (before["session"], before["slot"])
    assert after["fields"]["visits"] == 2


async def test_a_cookie_older_than_its_lifetime_is_none(gateway: Gateway) -> None:
    before, after = await visits(gateway, LIFETIME + DAY)
    assert after["session"] != before["session"]
    assert after["fields"]["visits"] == 1
