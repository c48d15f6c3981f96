"""Affinity keys: where each kind is looked for, and where not."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, unquote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_heads import head

from stickygw.routing.keys import MAX_KEY_BYTES, parse_key

IP = "192.0.2.7"


def value(text: str, *, target: str = "/", fields: list[tuple[str, str]] | None = None, ip: str = IP) -> bytes | None:
    """The value that the key finds, without its kind."""
    key = parse_key(text)
    found = key.of(head(target=target, extra=fields or []), ip)
    if found is None:
        return None
    prefix = text.encode() + b"\x00"
    assert found.startswith(prefix)
    return found.removeprefix(prefix)


def test_own_cookie_is_a_claim_and_no_key() -> None:
    key = parse_key("cookie")

    assert key.is_own_cookie
    assert key.text == "cookie"
    assert key.of(head(extra=[("Cookie", "cookie=x")]), IP) is None
    assert not parse_key("cookie:sid").is_own_cookie


def test_cookie_key_is_the_named_cookie_only() -> None:
    assert value("cookie:sid", fields=[("Cookie", "a=sid=1; sid=x%20y; sid=z")]) == b"x%20y"
    assert value("cookie:sid", fields=[("Cookie", "xsid=1; SID=2; sid")]) is None
    assert value("cookie:sid", target="/?sid=1", fields=[("X", "sid=1")]) is None


def test_header_key_is_the_named_field_only() -> None:
    assert value("header:X-User", fields=[("x-uSER", "\xfc 1"), ("X-User", "2")]) == b"\xfc 1"
    assert value("header:X-User", fields=[("X-User-Id", "1")]) is None
    assert value("header:X-User", fields=[("X-User", "")]) is None


def test_query_key_is_the_named_parameter_only() -> None:
    assert value("query:sid", target="/a?x=1&sid=a%2Fb=c&sid=2") == b"a/b=c"
    assert value("query:sid", target="/sid=1?xsid=1&sid&SID=2") is None
    assert value("query:sid", target="/a?x=?sid=1") is None
    assert value("query:sid", target="/a?sid=") is None
    assert value("query:sid", target="/a?sid=&sid=2") is None


@pytest.mark.parametrize(
    ("pattern", "target", "expected"),
    [
        ("/match/{id}", "/match/7", b"7"),
        ("/match/{id}", "/match/7?id=8", b"7"),
        ("/match/{id}", "/match/7/", b"7"),
        ("/match/{id}", "/match/7/chat/8", b"7"),
        ("/match/{id}", "/match/a%2Fb", b"a%2Fb"),
        ("/match/{id}", "/match/", None),
        ("/match/{id}", "/match", None),
        ("/match/{id}", "/match//7", None),
        ("/match/{id}", "/Match/7", None),
        ("/match/{id}", "/x/match/7", None),
        ("/match/{id}", "/matches/7", None),
        ("/match/{id}/live", "/match/7/live", b"7"),
        ("/match/{id}/live", "/match/7/live/x", b"7"),
        ("/match/{id}/live", "/match/7/lively", None),
        ("/match/{id}/live", "/match/7", None),
        ("/{tenant}", "/acme/anything", b"acme"),
        ("/{tenant}", "/", None),
        ("/a.b/{id}", "/aXb/1", None),
    ],
)
def test_path_key_is_one_whole_segment(pattern: str, target: str, expected: bytes | None) -> None:
    assert value(f"path:{pattern}", target=target) == expected


@pytest.mark.parametrize(
    ("setting", "sent", "expected"),
    [
        ("path:/match/{id}", "/match/%61%2D%7e%21!", b"a-~!!"),
        ("path:/match/{id}", "/match/%c3%A9%20", b"%C3%A9%20"),
        ("path:/match/{id}", "/match/%2561", b"%2561"),  # decoded once it is %61, and not a
        ("path:/match/{id}", "/match/100%", b"100%25"),
        ("path:/match/{id}", "/match/a+b", b"a+b"),
        ("query:id", "/?id=%61%2f?", b"a/?"),
        ("query:id", "/?id=a+b", b"a%20b"),
        ("query:id", "/?id=a%2Bb", b"a+b"),
    ],
)
def test_escapes_that_change_nothing_make_no_other_key(setting: str, sent: str, expected: bytes) -> None:
    assert value(setting, target=sent) == expected


SEGMENTS = st.text(st.sampled_from("ab%2F61+!~&=é"), min_size=1).map(lambda text: quote(text, "%+!~&="))


@pytest.mark.parametrize(
    ("setting", "target", "decoded"), [("path:/m/{id}", "/m/", unquote), ("query:id", "/?id=", unquote_plus)]
)
@given(one=SEGMENTS, other=SEGMENTS)
def test_two_ids_have_one_key_if_an_application_sees_one(
    setting: str, target: str, decoded: Callable[..., str], one: str, other: str
) -> None:
    if target.endswith("="):
        one, other = one.replace("&", ""), other.replace("&", "")
    keys = [value(setting, target=target + each) for each in (one, other)]
    ids = [decoded(each, errors="surrogateescape") for each in (one, other)]
    assert (keys[0] == keys[1]) == (ids[0] == ids[1])
    escaped = "".join(f"%{byte:02x}" for byte in ids[0].encode(errors="surrogateescape"))
    assert value(setting, target=target + escaped) == keys[0]


def test_ip_key_is_the_address() -> None:
    assert value("ip") == IP.encode()
    assert value("ip", ip="") is None


def test_too_long_value_is_no_key() -> None:
    assert value("header:X", fields=[("X", "a" * MAX_KEY_BYTES)]) == b"a" * MAX_KEY_BYTES
    assert value("header:X", fields=[("X", "a" * (MAX_KEY_BYTES + 1))]) is None


def test_kinds_with_the_same_value_do_not_collide() -> None:
    request = head(target="/m/7?a=7", extra=[("A", "7"), ("Cookie", "a=7")])
    texts = ["cookie:a", "header:a", "query:a", "path:/m/{id}", "ip"]

    assert len({parse_key(text).of(request, "7") for text in texts} - {None}) == len(texts)


BAD_KEYS = """
    Cookie|cookie:|cookie:a b|cookie:a;b|header|header:|header:a:b|header:ü|query|query:|query:a=b|query:a&b|path|path:
    |path:match/{id}|path:/match|path:/{a}/{b}|path:/match/{id}/|path:/m{id}|path:/{id}x|path:/{}|path:/{1}|path:/a?b/{id}
    |path:/a b/{id}|path:/ü/{id}|ip:|ip:4|session|cookie:\x00
"""


@pytest.mark.parametrize("text", ["", *(text.strip(" \n") for text in BAD_KEYS.split("|"))])
def test_text_that_is_no_key_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="is no affinity key: give cookie, cookie:NAME") as caught:
        parse_key(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=30) | st.text("/{}ab:", max_size=12).map("path:".__add__))
def test_any_setting_is_a_key_or_a_value_error(text: str) -> None:
    try:
        key = parse_key(text)
    except ValueError:
        return
    assert key.text == text
    key.of(head(), IP)
