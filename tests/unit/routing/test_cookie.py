"""The signed cookie: what is verified is what was signed, and nothing else is a cookie."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_heads import head

from stickygw.routing.cookie import (
    MAX_CANDIDATES,
    MAX_COOKIE_BYTES,
    CookieClaim,
    CookieKeys,
    claim_of,
    cookie_values,
)
from stickygw.types import MAX_SLOTS, GatewayId, SessionId, Slot

NOW = 1_700_000_000
LIFETIME = 90 * 86_400
NAME = "stickygw"
SECRET, OLDER, FOREIGN = b"n" * 32, b"o" * 32, b"f" * 32
KEYS = CookieKeys([SECRET, OLDER])
CLAIM = CookieClaim(SessionId("0123456789abcdef" * 2), GatewayId("89abcdef"), Slot(3), NOW)

HEX = "0123456789abcdef"
claims = st.builds(
    CookieClaim,
    session=st.text(HEX, min_size=32, max_size=32).map(SessionId),
    gateway=st.text(HEX, min_size=8, max_size=8).map(GatewayId),
    slot=st.integers(0, MAX_SLOTS - 1).map(Slot),
    issued=st.integers(NOW - LIFETIME, NOW + LIFETIME),
)


def claim(session: str = "a", slot: int = 3, issued: int = NOW) -> CookieClaim:
    return CookieClaim(SessionId(session * 32), GatewayId("89abcdef"), Slot(slot), issued)


def verified(value: str | bytes, keys: CookieKeys = KEYS, now: float = NOW) -> CookieClaim | None:
    data = value.encode("latin-1") if isinstance(value, str) else value
    return keys.verify(data, now=now, lifetime=LIFETIME)


def proved(*cookie_fields: str) -> CookieClaim | None:
    request = head(extra=[("Cookie", field) for field in cookie_fields])
    return claim_of(request, name=NAME, keys=KEYS, now=NOW, lifetime=LIFETIME)


@given(claims)
def test_what_was_signed_is_verified(signed: CookieClaim) -> None:
    value = KEYS.sign(signed)

    assert verified(value) == signed
    assert len(value) <= MAX_COOKIE_BYTES


@settings(deadline=None, max_examples=20)
@given(claims)
def test_every_flipped_bit_is_noticed(signed: CookieClaim) -> None:
    value = KEYS.sign(signed).encode("ascii")

    for position in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value)
            flipped[position] ^= 1 << bit
            assert verified(bytes(flipped)) is None, (position, bit)


@given(claims)
def test_every_other_last_character_is_noticed(signed: CookieClaim) -> None:
    # The last of 43 base64url characters carries four bits: a reader that decodes takes four spellings of it for one.
    value = KEYS.sign(signed).encode("ascii")

    assert [byte for byte in range(256) if verified(value[:-1] + bytes((byte,))) is not None] == [value[-1]]


def test_every_truncation_and_extension_is_noticed() -> None:
    value = KEYS.sign(CLAIM)

    for position in range(len(value)):
        assert verified(value[:position]) is None
        assert verified(value[position + 1 :]) is None
    for byte in range(256):
        assert verified(value.encode() + bytes((byte,))) is None
        assert verified(bytes((byte,)) + value.encode()) is None


@settings(deadline=None)
@given(claims, st.integers(0, 200), st.integers(0, 3), st.text("0123456789abcdef.-_=AZ", max_size=3))
def test_every_other_change_is_noticed(signed: CookieClaim, at: int, removed: int, put_in: str) -> None:
    value = KEYS.sign(signed)
    changed = value[:at] + put_in + value[at + removed :]

    assert (verified(changed) is None) == (changed != value)


@given(st.binary(max_size=200))
def test_garbage_is_no_cookie(value: bytes) -> None:
    assert verified(value) is None


def test_cookie_is_the_same_in_every_version() -> None:
    # If this fails, an upgrade logs every user out.
    value = "v1.838b372b.0123456789abcdef0123456789abcdef.89abcdef.3.1700000000."
    assert KEYS.sign(CLAIM) == value + "T2JY3UQO4mkA9__FZWVUvIkTTgzJ7om-iV8FEnNHQ5I"


@pytest.mark.parametrize(
    "outside",
    [
        CookieClaim(CLAIM.session, CLAIM.gateway, Slot(MAX_SLOTS), NOW),
        CookieClaim(CLAIM.session, CLAIM.gateway, Slot(-1), NOW),
        CookieClaim(CLAIM.session, CLAIM.gateway, CLAIM.slot, -1),
        CookieClaim(SessionId(CLAIM.session.upper()), CLAIM.gateway, CLAIM.slot, NOW),
        CookieClaim(CLAIM.session, GatewayId("89abcde"), CLAIM.slot, NOW),
    ],
)
def test_signed_value_outside_the_grammar_is_no_cookie(outside: CookieClaim) -> None:
    assert verified(KEYS.sign(outside)) is None


def test_rotation_needs_no_new_login_and_ends_with_the_key() -> None:
    by_older = CookieKeys([OLDER]).sign(CLAIM)
    both = verified(by_older, CookieKeys([SECRET, OLDER]))

    assert both == CLAIM
    assert both.is_by_older_key
    assert verified(by_older, CookieKeys([SECRET])) is None
    renewed = verified(CookieKeys([SECRET, OLDER]).sign(both), CookieKeys([SECRET]))
    assert renewed == CLAIM
    assert not renewed.is_by_older_key


def test_foreign_key_signs_nothing_for_us() -> None:
    assert verified(CookieKeys([FOREIGN]).sign(CLAIM)) is None


def test_life_ends_after_the_lifetime() -> None:
    value = KEYS.sign(CLAIM)

    assert verified(value, now=NOW + LIFETIME) == CLAIM
    assert verified(value, now=NOW + LIFETIME + 1) is None


def test_cookie_of_the_future_is_good_so_that_a_clock_set_back_logs_nobody_out() -> None:
    assert verified(KEYS.sign(CLAIM), now=NOW - 10 * LIFETIME) == CLAIM


def test_signatures_are_compared_in_constant_time_and_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    value = KEYS.sign(CLAIM)
    forged = value[:-43] + "f" * 43
    compared: list[tuple[bytes, bytes]] = []

    def answers(answer: bool) -> None:
        def compare(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return answer

        monkeypatch.setattr(hmac, "compare_digest", compare)

    answers(True)
    assert verified(forged) == CLAIM
    assert compared == [(value[-43:].encode(), b"f" * 43)]
    answers(False)
    assert verified(value) is None


@pytest.mark.parametrize("secrets", [[], [b"s" * 31], [SECRET, b""]])
def test_missing_or_short_secret_is_refused(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secret"):
        CookieKeys(secrets)


def test_repr_shows_no_secret() -> None:
    assert "nnnn" not in repr(KEYS)
    assert "oooo" not in repr(KEYS)
    assert not hasattr(KEYS, "__dict__")


# --- in a request -----------------------------------------------------------------------------------


def test_cookie_is_found_among_others() -> None:
    value = KEYS.sign(CLAIM)

    assert proved(f"a=1; {NAME}={value}; b=2") == CLAIM
    assert proved("a=1", f"{NAME}={value}") == CLAIM
    assert proved(f"a=1;{NAME}={value}") == CLAIM


def test_cookie_of_another_name_is_not_looked_at() -> None:
    value = KEYS.sign(CLAIM)

    assert proved(f"x{NAME}={value}") is None
    assert proved(f"{NAME}x={value}") is None
    assert proved(f"{NAME.upper()}={value}") is None
    assert proved(f"x={NAME}={value}") is None
    assert proved() is None


def test_cookie_that_is_altered_or_quoted_is_none() -> None:
    value = KEYS.sign(CLAIM)

    assert proved(f"{NAME}={value}x") is None
    assert proved(f'{NAME}="{value}"') is None
    assert proved(f"{NAME}=") is None
    assert proved(NAME) is None


def test_of_two_cookies_with_different_sessions_none_counts() -> None:
    one, other = KEYS.sign(claim("a")), KEYS.sign(claim("b"))

    assert proved(f"{NAME}={one}; {NAME}={other}") is None
    assert proved(f"{NAME}={one}", f"{NAME}={other}") is None


def test_of_two_cookies_with_one_session_the_newest_counts() -> None:
    older, newer = KEYS.sign(claim(slot=1, issued=NOW - 9)), KEYS.sign(claim(slot=2))

    assert proved(f"{NAME}={older}; {NAME}={newer}") == claim(slot=2)
    assert proved(f"{NAME}={newer}; {NAME}={older}") == claim(slot=2)


def test_cookie_that_does_not_verify_takes_nothing_from_one_that_does() -> None:
    assert proved(f"{NAME}=planted; {NAME}={KEYS.sign(CLAIM)}") == CLAIM


def test_flood_of_cookies_of_our_name_is_none() -> None:
    value = f"{NAME}={KEYS.sign(CLAIM)}"

    assert proved("; ".join([value] * MAX_CANDIDATES)) == CLAIM
    assert proved("; ".join([value] * (MAX_CANDIDATES + 1))) is None


def test_cookie_values_are_the_bytes_that_were_sent() -> None:
    request = head(extra=[("Cookie", "n=a=b; n=\xfc%20; n; m=1"), ("Cookie", " n= x")])

    assert cookie_values(request.fields, b"n") == [b"a=b", b"\xfc%20", b" x"]
