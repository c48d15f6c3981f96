"""Clients without a cookie jar bring the cookie's value in the query or as a subprotocol; nobody ever logs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import DEADLINE, Answer, Raw, upgrade
from websockets.frames import Opcode

TOKENS = f"{Path(__file__).parent / 'apps' / 'tokens.py'}:app"
PROTOCOL = "Sec-WebSocket-Protocol"
PATHS = pytest.mark.parametrize("path", ["/native", "/asgi"])

never_logged: set[str] = set()
"""Every token and session id of this module."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(TOKENS, "--log-level", "debug", "--set", "session.token=true", workers=2) as gateway:
        yield gateway
        log = whole_log(gateway)
        assert "reason=cookie" in log, "at debug level each route is logged"
        assert "path=/native" in log
        assert "the application logs its scope" in log
        assert "the application logs its request" in log
        assert "Traceback" not in log
        assert len(never_logged) > 10
        assert {text for text in never_logged if text in log} == set()


@dataclass(frozen=True)
class Visit:
    """The answer, and what the application saw."""

    answer: Answer
    seen: dict[str, Any]

    @property
    def token(self) -> str:
        """The value that the answer sets, as a client without a jar reads it from there."""
        assert self.answer.cookie is not None
        return self.answer.cookie.partition("=")[2]

    @property
    def agreed(self) -> str | None:
        """The subprotocol."""
        return self.answer.get(PROTOCOL)


def remembered(visit: Visit) -> Visit:
    never_logged.add(visit.seen["session"])
    if visit.answer.cookie is not None:
        never_logged.add(visit.token)
    return visit


async def connect(gateway: Gateway, target: str, *fields: tuple[str, str]) -> Visit:
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade(target, fields=fields))
        answer = await raw.opened()
        frame = await raw.next_frame()
    assert frame is not None
    assert frame.opcode is Opcode.TEXT
    return remembered(Visit(answer, json.loads(bytes(frame.data))))


class KeptAlive(HTTPConnection):
    """One connection for several requests, of clients without a jar."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__("127.0.0.1", gateway.port, timeout=DEADLINE)

    def visit(self, target: str, **fields: str) -> Visit:
        """One request; each field's name has underscores for its hyphens."""
        self.request("GET", target, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = self.getresponse()
        body = response.read()
        assert response.status == 200
        return remembered(Visit(Answer(response.status, response.getheaders(), body), json.loads(body)))


@PATHS
async def test_a_token_in_the_query_is_the_session_and_the_application_does_not_see_it(
    gateway: Gateway, path: str
) -> None:
    first = await connect(gateway, path)
    again = await connect(gateway, f"{path}?a=1&session={first.token}&b=%20")
    assert again.seen == {"session": first.seen["session"], "visits": 2, "query": "a=1&b=%20", "offered": []}
    assert again.answer.cookie is None


@PATHS
async def test_a_token_among_the_subprotocols_is_the_session_and_never_the_one_agreed_on(
    gateway: Gateway, path: str
) -> None:
    first = await connect(gateway, path)
    token = f"stickygw.session.{first.token}"
    again = await connect(gateway, path, (PROTOCOL, f"{token}, chat.v1"))
    assert again.seen == {"session": first.seen["session"], "visits": 2, "query": "", "offered": ["chat.v1"]}
    assert again.agreed == "chat.v1"
    alone = await connect(gateway, path, (PROTOCOL, token))
    assert (alone.seen["visits"], alone.seen["offered"], alone.agreed) == (3, [], None)


@PATHS
async def test_a_token_that_was_changed_or_contradicts_the_cookie_is_none(gateway: Gateway, path: str) -> None:
    first, other = await connect(gateway, path), await connect(gateway, path)
    changed = first.token[:-1] + ("A" if first.token[-1] != "A" else "E")
    never_logged.add(changed)
    cookie = ("Cookie", f"stickygw={other.token}")
    for target, fields in (
        (f"{path}?session={changed}", []),
        (path, [(PROTOCOL, f"chat.v1, stickygw.session.{changed}")]),
        (f"{path}?session={first.token}", [cookie]),
        (path, [cookie, (PROTOCOL, f"chat.v1, stickygw.session.{first.token}")]),
    ):
        stranger = await connect(gateway, target, *fields)
        assert stranger.seen["session"] not in (first.seen["session"], other.seen["session"])
        assert (stranger.seen["visits"], stranger.seen["query"]) == (1, "")
        assert stranger.answer.cookie is not None


def test_each_request_of_a_connection_goes_by_its_own_token(gateway: Gateway) -> None:
    with closing(KeptAlive(gateway)) as client:
        one, other = client.visit("/"), client.visit("/")
        assert one.seen["session"] != other.seen["session"]
        for visit in (one, other, one):
            again = client.visit(f"/?session={visit.token}&x=1")
            assert (again.seen["session"], again.seen["query"]) == (visit.seen["session"], "x=1")
        assert client.visit("/").seen["visits"] == 1


def test_a_link_with_a_token_opens_nobody_s_session(gateway: Gateway) -> None:
    with closing(KeptAlive(gateway)) as client:
        first = client.visit("/")
    with closing(KeptAlive(gateway)) as client:
        for _ in range(2):  # as the first request of a connection, and as a further one
            followed = client.visit(f"/?session={first.token}", Sec_Fetch_Mode="navigate")
            assert followed.seen["session"] != first.seen["session"]
            assert followed.seen["query"] == ""


async def test_a_refused_handshake_does_not_log_its_token_either(gateway: Gateway) -> None:
    first = await connect(gateway, "/native")
    for fields in (
        [("Origin", "http://elsewhere.example")],
        [("Origin", "null"), (PROTOCOL, f"stickygw.session.{first.token}")],
    ):
        async with Raw(gateway.port) as raw:
            await raw.send(upgrade(f"/native?session={first.token}", fields=fields))
            assert (await raw.answer()).status == 403


async def test_by_default_tokens_are_not_read() -> None:
    with Gateway(TOKENS, workers=1) as gateway:
        first = await connect(gateway, "/native")
        again = await connect(gateway, f"/native?session={first.token}", (PROTOCOL, f"stickygw.session.{first.token}"))
        assert again.seen["visits"] == 1
        assert again.seen["query"] == f"session={first.token}"
        assert again.agreed is None
