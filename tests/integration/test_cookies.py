"""Who may be whom: the signed cookie end to end. Nothing that a client makes up leads to another's session."""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.client import gather_bounded
from support.gateway import Gateway
from support.logs import whole_log
from support.raw import Answer, Raw, frame, upgrade

from stickygw.routing.cookie import CookieClaim, CookieKeys
from stickygw.types import GatewayId, SessionId, Slot

PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"
PROXY = "127.0.0.9"
"""The peer that is trusted; clients come from 127.0.0.1."""

LIFETIME = 90 * 86_400
GATEWAY, OTHER_GATEWAY = GatewayId("00c0ffee"), GatewayId("0ddba115")
NEWEST, OLDER, REMOVED = (secrets.token_urlsafe(48) for _ in range(3))

never_logged: set[str] = {NEWEST, OLDER, REMOVED}
"""Every secret, cookie value and session id of this module."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    options = ["--log-level", "debug", "--set", f"gateway_id={GATEWAY}", "--set", f"trusted_proxies={PROXY}"]
    environment = {"STICKYGW_SECRET": f"{NEWEST},{OLDER}"}
    with Gateway(PROBE, *options, workers=2, environment=environment) as gateway:
        yield gateway
        log = whole_log(gateway)
        assert "reason=cookie" in log, "at debug level each route is logged"
        assert "Traceback" not in log
        assert len(never_logged) > 100
        assert {text for text in never_logged if text in log} == set()


@dataclass(frozen=True)
class Visit:
    """One WebSocket: its 101, and what the probe said."""

    answer: Answer
    slot: int
    session: str
    fields: dict[str, Any]

    @property
    def is_first(self) -> bool:
        """Whether the visitor is a new one."""
        return self.fields == {"visits": 1}


async def visit(
    gateway: Gateway, *cookies: str, source: str = "127.0.0.1", fields: tuple[tuple[str, str], ...] = ()
) -> Visit:
    """Connect with these Cookie fields, say who is there, and leave."""
    async with Raw(gateway.port, source=source) as raw:
        cookie_fields = [("Cookie", cookie) for cookie in cookies]
        await raw.send(upgrade(fields=[*cookie_fields, *fields]) + frame({"do": "who"}))
        answer = await raw.opened()
        said = await raw.next_frame()
    assert said is not None
    facts = json.loads(bytes(said.data))
    never_logged.add(facts["session"])
    if answer.cookie is not None:
        never_logged.add(value_of(answer))
    return Visit(answer, facts["slot"], facts["session"], facts["fields"])


def value_of(answer: Answer) -> str:
    assert answer.cookie is not None
    return answer.cookie.removeprefix("stickygw=")


@pytest.fixture
async def victim(gateway: Gateway) -> Visit:
    """Somebody with something in their session."""
    first = await visit(gateway)
    async with Raw(gateway.port) as raw:
        fields = [("Cookie", f"stickygw={value_of(first.answer)}")]
        await raw.send(upgrade(fields=fields) + frame({"do": "set", "field": "name", "value": "Ada"}))
        await raw.opened()
        assert await raw.next_frame() is not None
    return first


def signed(
    victim: Visit,
    *keys: str,
    gateway: GatewayId = GATEWAY,
    slot: int | None = None,
    age: int = 10,
) -> str:
    """A cookie of the victim's session as the holder of `keys` would make it."""
    slot = victim.slot if slot is None else slot
    claim = CookieClaim(SessionId(victim.session), gateway, Slot(slot), int(time.time()) - age)
    value = CookieKeys([key.encode() for key in keys]).sign(claim)
    never_logged.add(value)
    return value


async def test_a_visitors_own_cookie_is_session_and_slot(gateway: Gateway, victim: Visit) -> None:
    for visits in (3, 4):
        again = await visit(gateway, f"stickygw={value_of(victim.answer)}")
        assert (again.slot, again.session) == (victim.slot, victim.session)
        assert again.fields == {"visits": visits, "name": "Ada"}
        assert again.answer.cookie is None


# What does not hold


async def is_a_stranger(gateway: Gateway, victim: Visit, *cookies: str) -> None:
    """Whoever comes with these is a new visitor, and is told so."""
    stranger = await visit(gateway, *cookies)
    assert stranger.session != victim.session
    assert stranger.is_first, cookies
    assert stranger.answer.cookie is not None


async def test_a_cookie_with_any_bit_flipped_is_none(gateway: Gateway, victim: Visit) -> None:
    value = value_of(victim.answer)

    async def flipped(place: int, bit: int) -> None:
        changed = bytearray(value.encode())
        changed[place] ^= 1 << bit
        text = changed.decode("latin-1")
        if 0x20 <= changed[place] < 0x7F:  # the rest the gate refuses
            await is_a_stranger(gateway, victim, f"stickygw={text}")

    # Bits 0 to 4: digits become digits, letters letters.
    await gather_bounded(20, *(flipped(place, place % 5) for place in range(len(value))))


async def test_a_truncated_cookie_is_none(gateway: Gateway, victim: Visit) -> None:
    value = value_of(victim.answer)
    cuts = (is_a_stranger(gateway, victim, f"stickygw={value[:length]}") for length in range(0, len(value), 3))
    await gather_bounded(20, *cuts, is_a_stranger(gateway, victim, f"stickygw={value[:-1]}"))


@pytest.mark.parametrize(
    "change",
    [
        "{}A",
        "{}=",
        "{}.",
        "A{}",
        '"{}"',
        "{} x",
        "{}%00",
        "{}" + "A" * 5000,
        "V1{}",  # in the place of v1
    ],
)
async def test_an_extended_cookie_is_none(gateway: Gateway, victim: Visit, change: str) -> None:
    value = value_of(victim.answer)
    text = change.format(value) if not change.startswith("V1") else "V1" + value[2:]
    await is_a_stranger(gateway, victim, f"stickygw={text}")


async def test_a_cookie_in_another_spelling_is_none(gateway: Gateway, victim: Visit) -> None:
    parts = value_of(victim.answer).split(".")
    version, key, session, gateway_id, slot, issued, signature = parts
    for spelled in (
        [version, key, session.upper(), gateway_id, slot, issued, signature],
        [version, key, session, gateway_id, "0" + slot, issued, signature],
        [version, key, session, gateway_id, "+" + slot, issued, signature],
        [version, key, session, gateway_id, slot, issued + ".0", signature],
        [version, key, session, gateway_id, slot, issued, signature + "="],
        [version, key, session, gateway_id, str(1 - int(slot)), issued, signature],
    ):
        if spelled != parts:
            await is_a_stranger(gateway, victim, "stickygw=" + ".".join(spelled))


async def test_a_cookie_signed_with_another_key_is_none(gateway: Gateway, victim: Visit) -> None:
    await is_a_stranger(gateway, victim, f"stickygw={signed(victim, secrets.token_urlsafe(48))}")


async def test_a_cookie_of_a_removed_key_is_none(gateway: Gateway, victim: Visit) -> None:
    await is_a_stranger(gateway, victim, f"stickygw={signed(victim, REMOVED)}")


@pytest.mark.parametrize("age", [LIFETIME + 60, 10 * LIFETIME])
async def test_a_cookie_past_its_life_is_none(gateway: Gateway, victim: Visit, age: int) -> None:
    await is_a_stranger(gateway, victim, f"stickygw={signed(victim, NEWEST, age=age)}")


async def test_of_two_that_hold_for_different_sessions_none_counts(gateway: Gateway, victim: Visit) -> None:
    other = await visit(gateway)
    both = [f"stickygw={value_of(victim.answer)}", f"stickygw={value_of(other.answer)}"]
    for cookies in (both, both[::-1], ["; ".join(both)]):
        visitor = await visit(gateway, *cookies)
        assert visitor.session not in (victim.session, other.session)
        assert visitor.is_first


async def test_a_planted_cookie_that_does_not_hold_takes_nobody_out(gateway: Gateway, victim: Visit) -> None:
    mine = f"stickygw={value_of(victim.answer)}"
    for cookies in ([f"stickygw=planted; {mine}"], [mine, "stickygw=planted"], [mine, mine]):
        assert (await visit(gateway, *cookies)).session == victim.session


async def test_a_hundred_cookies_of_one_name_are_none(gateway: Gateway, victim: Visit) -> None:
    mine = f"stickygw={value_of(victim.answer)}"
    await is_a_stranger(gateway, victim, "; ".join([*(f"stickygw=x{number}" for number in range(99)), mine]))


async def test_a_hundred_cookies_of_other_names_are_no_matter(gateway: Gateway, victim: Visit) -> None:
    mine = f"stickygw={value_of(victim.answer)}"
    others = [f"{name}{number}=v" for number in range(50) for name in ("c", "stickygw")]
    assert (await visit(gateway, "; ".join([*others, mine]))).session == victim.session


async def test_a_cookie_of_4_kilobytes_is_no_matter(gateway: Gateway, victim: Visit) -> None:
    mine = f"stickygw={value_of(victim.answer)}"
    assert (await visit(gateway, f"big={'v' * 4092}", mine)).session == victim.session
    assert (await visit(gateway, f"big={'v' * 4092}; {mine}")).session == victim.session
    await is_a_stranger(gateway, victim, f"stickygw={'v' * 4092}")


@pytest.mark.parametrize("name", ["stickygw2", "xstickygw", "STICKYGW", "stickygw ", "sticky%67w"])
async def test_a_cookie_of_another_name_is_none(gateway: Gateway, victim: Visit, name: str) -> None:
    await is_a_stranger(gateway, victim, f"{name}={value_of(victim.answer)}")


async def test_the_id_in_another_field_or_the_query_is_nothing(gateway: Gateway, victim: Visit) -> None:
    value = value_of(victim.answer)
    stranger = await visit(gateway, fields=(("X-Stickygw", value), ("Authorization", f"Bearer {value}")))
    assert stranger.is_first


# Other gateways, other keys


async def test_another_gateways_cookie_keeps_its_session_and_gets_no_new_one(gateway: Gateway, victim: Visit) -> None:
    slots = set()
    for slot in (0, 1, 700):
        value = signed(victim, NEWEST, gateway=OTHER_GATEWAY, slot=slot)
        guest = await visit(gateway, f"stickygw={value}")
        assert guest.session == victim.session
        assert guest.fields["name"] == "Ada"
        assert guest.answer.cookie is None  # its hint is the other gateway's to change
        slots.add(guest.slot)
    assert len(slots) == 1  # by the session's id: all its tabs meet


async def test_a_cookie_of_a_slot_that_is_gone_gets_a_new_hint(gateway: Gateway, victim: Visit) -> None:
    moved = await visit(gateway, f"stickygw={signed(victim, NEWEST, slot=700)}")
    assert moved.session == victim.session
    assert value_of(moved.answer).split(".")[4] == str(moved.slot)


async def test_the_older_keys_cookie_holds_and_is_signed_anew(gateway: Gateway, victim: Visit) -> None:
    older = signed(victim, OLDER)
    again = await visit(gateway, f"stickygw={older}")
    assert (again.slot, again.session) == (victim.slot, victim.session)
    renewed = value_of(again.answer)
    assert renewed.split(".")[1] == value_of(victim.answer).split(".")[1] != older.split(".")[1]
    # Its first date stays: the lifetime is absolute.
    assert renewed.split(".")[5] == older.split(".")[5]
    assert (await visit(gateway, f"stickygw={renewed}")).answer.cookie is None


# Attributes


def attributes(answer: Answer) -> list[str]:
    return (answer.get("Set-Cookie") or "").split("; ")[1:]


async def test_the_cookie_is_for_this_host_alone_and_no_script(gateway: Gateway) -> None:
    first = await visit(gateway)
    assert attributes(first.answer) == ["Path=/", "HttpOnly", "SameSite=Lax", f"Max-Age={LIFETIME}"]
    assert len(value_of(first.answer)) <= 256


async def test_it_is_secure_when_a_trusted_proxy_says_that_the_client_has_tls(gateway: Gateway) -> None:
    for scheme in ("https", "wss"):
        first = await visit(gateway, source=PROXY, fields=(("X-Forwarded-Proto", scheme),))
        assert attributes(first.answer)[-1] == "Secure"


async def test_it_is_not_secure_otherwise(gateway: Gateway) -> None:
    for source, fields in (
        ("127.0.0.1", (("X-Forwarded-Proto", "https"),)),
        (PROXY, ()),
        (PROXY, (("X-Forwarded-Proto", "http"),)),
        (PROXY, (("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http"))),
    ):
        first = await visit(gateway, source=source, fields=fields)
        assert "Secure" not in attributes(first.answer), (source, fields)


async def test_its_options_are_its_attributes() -> None:
    options = ["cookie.name=__Secure-s", "cookie.path=/app", "cookie.domain=example.com", "cookie.partitioned=true"]
    options += ["cookie.same_site=None", "session.lifetime=100"]
    with Gateway(PROBE, *(word for option in options for word in ("--set", option)), workers=1) as gateway:
        async with Raw(gateway.port) as raw:
            await raw.send(upgrade())
            first = await raw.opened()
    assert first.cookie is not None
    assert first.cookie.startswith("__Secure-s=v1.")
    assert attributes(first) == [
        *("Path=/app", "Domain=example.com", "HttpOnly", "SameSite=None", "Max-Age=100", "Secure", "Partitioned")
    ]


async def test_a_renewed_cookie_lives_as_long_as_the_first_would_have(gateway: Gateway, victim: Visit) -> None:
    for age in (1000, -1000):  # of the future: the clock was set back
        again = await visit(gateway, f"stickygw={signed(victim, OLDER, age=age)}")
        [text] = [text for text in attributes(again.answer) if text.startswith("Max-Age=")]
        left = int(text.removeprefix("Max-Age="))
        assert min(LIFETIME, LIFETIME - age) - 30 <= left <= min(LIFETIME, LIFETIME - age)


def test_no_process_shows_a_secret_on_its_command_line(gateway: Gateway) -> None:
    pids = [gateway.pid, *gateway.worker_pids().values()]
    assert len(pids) == 3
    for pid in pids:
        text = Path(f"/proc/{pid}/cmdline").read_text()
        assert NEWEST not in text
        assert OLDER not in text
