"""The Set-Cookie line, judged by what a browser makes of it (RFC 6265bis §5.6, §5.7)."""

from __future__ import annotations

import itertools

import pytest

from stickygw.config.settings import CookieSettings
from stickygw.routing.cookie import MAX_COOKIE_BYTES
from stickygw.routing.set_cookie import MAX_SET_COOKIE_BYTES, CookieOptions

MAX_ATTRIBUTE_BYTES = 1024
"""Browsers ignore an attribute whose value is longer (RFC 6265bis §5.6)."""
MAX_PAIR_BYTES = 4096
"""Browsers ignore a cookie whose name and value are longer together (RFC 6265bis §5.6)."""


def line(options: CookieOptions, *, is_secure: bool = False) -> str:
    return options.set_cookie("v", max_age=60, is_secure=is_secure)


def browser_takes(text: str, *, is_tls: bool) -> bool:
    """Whether a browser keeps a cookie that an answer sets for itself, by the rules of RFC 6265bis §5.7 and CHIPS."""
    pair, *attributes = text.split("; ")
    name, _, value = pair.partition("=")
    found = dict(attribute.partition("=")[::2] for attribute in attributes)
    is_secure = "Secure" in found
    if len(name) + len(value) > MAX_PAIR_BYTES or any(len(text) > MAX_ATTRIBUTE_BYTES for text in found.values()):
        return False
    if is_secure and not is_tls:
        return False
    if (found["SameSite"] == "None" or "Partitioned" in found) and not is_secure:
        return False
    if name.lower().startswith("__secure-"):
        return is_secure
    if name.lower().startswith("__host-"):
        return is_secure and "Domain" not in found and found["Path"] == "/"
    return True


MATRIX = [
    CookieOptions(name, domain, path, same_site, is_partitioned)
    for name, domain, path, same_site, is_partitioned in itertools.product(
        ("stickygw", "__Secure-s", "__Host-s", "__hOsT-s"),
        (None, "example.com"),
        ("/", "/app"),
        ("Lax", "Strict", "None"),
        (False, True),
    )
    if not name.lower().startswith("__host-") or (domain, path) == (None, "/")  # the settings allow no other
]


@pytest.mark.parametrize("options", MATRIX, ids=str)
def test_every_allowed_set_of_options_is_taken_under_tls_and_no_script_reads_it(options: CookieOptions) -> None:
    for is_secure in (True, False):  # whether a proxy has told of it
        text = line(options, is_secure=is_secure)
        assert browser_takes(text, is_tls=True)
        assert (
            browser_takes(text, is_tls=False) == ("Secure" not in text) == (not is_secure and not options.needs_secure)
        )
        assert "; HttpOnly" in text


def test_by_default_it_stays_with_this_host() -> None:
    assert line(CookieOptions("stickygw")) == "stickygw=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"


def test_each_option_is_one_attribute() -> None:
    options = CookieOptions("s", "example.com", "/app", "None", is_partitioned=True)
    assert line(options) == (
        "s=v; Path=/app; Domain=example.com; HttpOnly; SameSite=None; Max-Age=60; Secure; Partitioned"
    )


def test_the_longest_line_that_settings_allow_is_taken_by_every_browser() -> None:
    domain = ".".join(["a" * 61] * 4) + ".abcde"
    settings = CookieSettings(name="n" * 64, domain=domain, path="/" + "p" * 1023, same_site="Strict", partitioned=True)
    assert len(domain) == 253
    options = CookieOptions(settings.name, settings.domain, settings.path, settings.same_site, settings.partitioned)
    text = options.set_cookie("v" * MAX_COOKIE_BYTES, max_age=10**18, is_secure=True)

    assert browser_takes(text, is_tls=True)
    assert len(text) <= MAX_SET_COOKIE_BYTES
