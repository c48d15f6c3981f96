"""Whose a further request on a kept-alive connection is, and whether its answer renews the cookie."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from support.raw import head

from stickygw.apps.asgi.further import FurtherOffers
from stickygw.apps.native.runtime import Identity
from stickygw.config.settings import SessionSettings, Settings
from stickygw.connections.flow import Flusher
from stickygw.connections.transport import SocketTransport
from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.routing.request_head import Head, examine
from stickygw.types import GatewayId, HandOverId, SessionId, Slot
from stickygw.wire.link import Offer

NEWEST, OLDER = b"n" * 32, b"o" * 32
HERE, ELSEWHERE = GatewayId("0000aaaa"), GatewayId("0000bbbb")
SESSION = SessionId("5" * 32)
NAMELESS = Offer(HandOverId(1), None, 0, Slot(1), "127.0.0.1", 1, False, "test")


def signed(secret: bytes, *, gateway: GatewayId = HERE, slot: int = 1) -> str:
    return CookieKeys([secret]).sign(CookieClaim(SESSION, gateway, Slot(slot), int(time.time()) - 10))


@pytest.fixture
async def transport() -> AsyncIterator[SocketTransport]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs, ours:
            yield SocketTransport(theirs, loop, Flusher(loop))


def further(transport: SocketTransport, *fields: tuple[str, str], target: str = "/", **settings: object) -> Offer:
    offers = FurtherOffers(Settings(**settings), CookieKeys([NEWEST, OLDER]), Identity(Slot(1), 1, 4, HERE))  # type: ignore[arg-type]
    request = examine(head("GET", target, fields=fields))
    assert isinstance(request, Head)
    return offers.of(NAMELESS, request, transport)


@pytest.mark.parametrize(
    ("value", "slot"),
    [
        (signed(NEWEST), None),
        (signed(OLDER), 1),
        (signed(OLDER, slot=2), 2),
        (signed(OLDER, gateway=ELSEWHERE), None),
    ],
)
async def test_our_cookie_by_an_older_key_is_renewed_and_names_the_slot_that_it_named(
    transport: SocketTransport, value: str, slot: int | None
) -> None:
    offer = further(transport, ("Cookie", f"stickygw={value}"))
    assert (offer.session, offer.cookie_slot) == (SESSION, slot)


async def test_behind_a_trusted_proxy_a_further_request_may_be_another_client_s(transport: SocketTransport) -> None:
    fields = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")]
    offer = further(transport, *fields, trusted_proxies=("127.0.0.1",))
    assert (offer.host, offer.port, offer.is_secure) == ("203.0.113.9", 0, True)
    assert further(transport, trusted_proxies=("127.0.0.1",)).host == "127.0.0.1"
    assert further(transport, *fields) is NAMELESS, "nobody says that its word counts"


async def test_a_token_is_read_where_the_settings_say_so(transport: SocketTransport) -> None:
    target, reads = f"/?session={signed(NEWEST)}", SessionSettings(token=True)
    assert further(transport, target=target) is NAMELESS
    assert further(transport, target=target, session=reads).session == SESSION
    assert further(transport, session=reads).session is None
