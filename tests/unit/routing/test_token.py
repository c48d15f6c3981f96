"""The signed value outside of a cookie: where it counts, and that nobody behind the gate sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_heads import head, head_bytes

from stickygw.routing.cookie import MAX_CANDIDATES, CookieClaim, CookieKeys, claim_of
from stickygw.routing.request_head import Head, examine
from stickygw.routing.token import token_values, without_token
from stickygw.types import GatewayId, SessionId, Slot

NOW = 1_700_000_000
KEYS = CookieKeys([b"n" * 32])
PROTOCOL = "Sec-WebSocket-Protocol"


def signed(session: str = "a") -> str:
    return KEYS.sign(CookieClaim(SessionId(session * 32), GatewayId("89abcdef"), Slot(3), NOW))


def proved(request: Head, *, reads_token: bool = True) -> str | None:
    claim = claim_of(request, name="stickygw", keys=KEYS, now=NOW, lifetime=1000, reads_token=reads_token)
    return None if claim is None else claim.session[0]


def plain(target: str, *fields: tuple[str, str]) -> Head:
    verdict = examine(head_bytes(f"GET {target} HTTP/1.1", [("Host", "h"), *fields]))
    assert isinstance(verdict, Head)
    return verdict


def in_query(value: str) -> Head:
    return head(target=f"/ws?a=1&session={value}&b=2")


def in_subprotocol(value: str) -> Head:
    return head(extra=[(PROTOCOL, f"chat.v1, stickygw.session.{value}")])


@pytest.mark.parametrize("place", [in_query, in_subprotocol])
def test_a_token_counts_like_a_cookie_where_tokens_are_read(place) -> None:
    assert proved(place(signed())) == "a"
    assert proved(place(signed()), reads_token=False) is None
    assert proved(place(signed()[:-1])) is None
    assert proved(place("")) is None


@pytest.mark.parametrize(
    "request_head",
    [
        head(target=f"/ws?session={signed()}", extra=[("Cookie", f"stickygw={signed('b')}")]),
        head(target=f"/ws?session={signed()}&session={signed('b')}"),
        head(target=f"/ws?session={signed()}", extra=[(PROTOCOL, f"stickygw.session.{signed('b')}")]),
    ],
)
def test_of_two_with_different_ids_none_counts(request_head: Head) -> None:
    assert proved(request_head) is None


def test_a_cookie_and_a_token_of_one_session_count() -> None:
    both = head(target=f"/ws?session={signed()}", extra=[("Cookie", f"stickygw={signed()}")])
    assert proved(both) == "a"


def test_a_flood_of_tokens_and_cookies_is_none() -> None:
    cookies = [("Cookie", f"stickygw={signed()}")] * (MAX_CANDIDATES - 1)
    assert proved(head(target=f"/ws?session={signed()}", extra=cookies)) == "a"
    assert proved(head(target=f"/ws?session={signed()}&session=x", extra=cookies)) is None


def test_a_link_logs_nobody_in_as_somebody_else() -> None:
    target = f"/?session={signed()}"
    assert proved(plain(target, ("Sec-Fetch-Mode", "cors"))) == "a"
    assert proved(plain(target, ("Accept", "*/*"))) == "a"
    assert proved(plain(target, ("Sec-Fetch-Mode", "navigate"))) is None
    assert proved(plain(target, ("Accept", "text/html"))) is None


def test_only_a_handshake_has_subprotocols() -> None:
    request = plain("/", (PROTOCOL, f"stickygw.session.{signed()}"))
    assert token_values(request) == []
    assert without_token(request) is request


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/a?session=x", "/a"),
        ("/a?session=", "/a"),
        ("/a?b=1&session=x&c=%20&session=y", "/a?b=1&c=%20"),
        ("/session=x?sessions=1&xsession=2&SESSION=3", "/session=x?sessions=1&xsession=2&SESSION=3"),
        ("/a?b=1?session=x", "/a?b=1?session=x"),
        ("/a?", "/a?"),
    ],
)
def test_the_query_is_handed_on_without_the_token(target: str, left: str) -> None:
    clean = without_token(head(target=target))
    assert (clean.target, clean.path, clean.query) == (left, left.partition("?")[0], left.partition("?")[2])


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        (["stickygw.session.x"], []),
        (["a, stickygw.session.x,b"], [b"a, b"]),
        (["stickygw.session.x", "a"], [b"a"]),
        (["a,  b"], [b"a,  b"]),
    ],
)
def test_subprotocols_are_handed_on_without_the_token(fields: list[str], left: list[bytes]) -> None:
    clean = without_token(head(extra=[(PROTOCOL, field) for field in fields]))
    assert clean.get_all(b"sec-websocket-protocol") == left
    assert clean.get(b"sec-websocket-protocol") == (left[0] if left else None)


words = st.sampled_from(["session", "stickygw.session", "a", "v1.secret", "=", "&", "?", ".", ",", ", ", "\t,"])
texts = st.lists(words, max_size=8).map("".join)


@given(texts, texts)
def test_what_is_handed_on_has_no_token_left_and_all_else_in_its_place(query: str, offered: str) -> None:
    query = query.replace(", ", "").replace("\t", "")
    request = head(target=f"/?{query}", extra=[(PROTOCOL, offered), ("X-Last", "z")])
    clean = without_token(request)

    assert token_values(clean) == []
    assert without_token(clean) == clean
    assert clean.query == "&".join(part for part in query.split("&") if not part.startswith("session="))
    assert clean.fields[:-2] == request.fields[: len(clean.fields) - 2]
    assert clean.fields[-1] == request.fields[-1]
    assert (clean.method, clean.path, clean.size) == (request.method, request.path, request.size)
