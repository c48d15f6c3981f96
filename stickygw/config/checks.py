"""The rules that a setting's type cannot say: what fits what else, and the texts with a grammar of their own.

Keys and trusted proxies have routing's grammar, floors above this one: `stickygw.cli.sound` checks them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from stickygw.config.address import parse_address
from stickygw.config.settings import CookieSettings, SessionSettings
from stickygw.config.sources import Loaded

MIN_SECRET_BYTES = 32
"""HMAC-SHA256 wants a key no shorter than its output (RFC 2104 §3)."""

MAKE_SECRET = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z")

_PLACE = re.compile(r"(?:https?|wss?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z")

_AN_ORIGIN = '"same-host", "*", or an origin as browsers send it: https://example.com, in lower case, without a path'


def broken_rules(loaded: Loaded) -> list[str]:
    """One line for each rule that the settings break."""
    rules = (
        _secret,
        _redis_url,
        _bind,
        _public_url,
        _origins,
        _watch,
        _cookie_prefix,
        _cookie_secure,
        _cross_site,
        _touch_interval,
    )
    return [problem for rule in rules for problem in rule(loaded)]


def _secret(loaded: Loaded) -> Iterator[str]:
    settings = loaded.settings
    if settings.redis.url is not None and not settings.secret:
        yield (
            f"secret: not given, but redis.url is (from {loaded.origin('redis.url')}), and all gateways "
            f"at one Redis must share it; make one with {MAKE_SECRET} and put it into STICKYGW_SECRET"
        )
    for number, secret in enumerate(settings.secret, start=1):
        length = len(secret.get_secret_value().encode())
        if length < MIN_SECRET_BYTES:
            yield (
                f"secret: key {number} of {len(settings.secret)} has {length} bytes "
                f"(from {loaded.origin('secret')}); allowed: at least {MIN_SECRET_BYTES} bytes; "
                f"make one with {MAKE_SECRET}"
            )


def _redis_url(loaded: Loaded) -> Iterator[str]:
    url = loaded.settings.redis.url
    if url is not None and not _is_redis_url(url.get_secret_value()):
        yield loaded.wrong("redis.url", url.get_secret_value(), "redis://HOST:PORT, rediss://HOST:PORT or unix:///path")


def _is_redis_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:  # a port that is no number, brackets that do not match
        return False
    if url.scheme == "unix":
        return url.path.startswith("/")
    return url.scheme in ("redis", "rediss") and bool(url.hostname)


def _bind(loaded: Loaded) -> Iterator[str]:
    bind = loaded.settings.bind
    for text in bind:
        try:
            parse_address(text)
        except ValueError as error:
            yield loaded.wrong("bind", text, f"HOST:PORT, [IPv6]:PORT or unix:/path ({error})")
    for text, times in Counter(bind).items():
        if times > 1 and not text.endswith(":0"):
            yield loaded.wrong("bind", text, "each address once")


def _public_url(loaded: Loaded) -> Iterator[str]:
    url = loaded.settings.public_url
    if url is not None and not _is_place(url):
        yield loaded.wrong(
            "public_url", url, "http(s)://HOST, ws(s)://HOST, with a :PORT perhaps, in lower case, no path"
        )


def _is_place(url: str) -> bool:
    match = _PLACE.match(url)
    if match is None:
        return False
    try:
        parse_address(match[1] + (match[2] or ":443"))
    except ValueError:
        return False
    return match[2] != ":0"


def _origins(loaded: Loaded) -> Iterator[str]:
    for text in loaded.settings.origins:
        if text not in ("same-host", "*") and not _ORIGIN.match(text):
            yield loaded.wrong("origins", text, _AN_ORIGIN)


def _watch(loaded: Loaded) -> Iterator[str]:
    if loaded.settings.watch and find_spec("watchfiles") is None:
        yield (
            f"watch: wanted (from {loaded.origin('watch')}), but the package watchfiles is not installed; "
            "pip install 'stickygw[watch]'"
        )


def host_prefix_problems(cookie: CookieSettings) -> Iterator[tuple[str, Any, str]]:
    """Browsers drop a cookie that breaks the promise of its name (RFC 6265bis §4.1.3). Name, value, what is allowed."""
    if not _has_prefix(cookie.name, "__Host-"):
        return
    if cookie.domain is not None:
        yield "domain", cookie.domain, f"none, since its name is {cookie.name}"
    if cookie.path != "/":
        yield "path", cookie.path, f'"/", since its name is {cookie.name}'


def _cookie_prefix(loaded: Loaded) -> Iterator[str]:
    for name, value, allowed in host_prefix_problems(loaded.settings.cookie):
        yield loaded.wrong(f"cookie.{name}", value, allowed)


def _cookie_secure(loaded: Loaded) -> Iterator[str]:
    """Browsers drop a cookie of these kinds that is not Secure, and take no Secure one without TLS."""
    cookie = loaded.settings.cookie
    # The gateway itself speaks no TLS: only a proxy can tell of it, or whoever chose such a name.
    if loaded.settings.trusted_proxies or _has_prefix(cookie.name, "__Host-", "__Secure-"):
        return
    remedy = "only with TLS in front: name the proxy in trusted_proxies, or give the cookie a name with __Host-"
    if cookie.same_site == "None":
        yield loaded.wrong("cookie.same_site", cookie.same_site, f"Lax, Strict; None {remedy}")
    if cookie.partitioned:
        yield loaded.wrong("cookie.partitioned", cookie.partitioned, f"false; true {remedy}")


def _cross_site(loaded: Loaded) -> Iterator[str]:
    """A cookie that comes with the requests of every site, and pages of every site: any of them could open a WebSocket
    as whoever looks at it (cross-site WebSocket hijacking)."""
    if loaded.settings.cookie.same_site == "None" and "*" in loaded.settings.origins:
        allowed = "the origins of the pages that may connect, since cookie.same_site is None"
        yield loaded.wrong("origins", "*", allowed)


def _has_prefix(name: str, *prefixes: str) -> bool:
    return name.lower().startswith(tuple(prefix.lower() for prefix in prefixes))


def touch_interval_problems(session: SessionSettings) -> Iterator[tuple[str, Any, str]]:
    """A session in use must not end between two touches. Name, value, what is allowed."""
    if session.touch_interval is not None and session.touch_interval >= session.ttl:
        yield "touch_interval", session.touch_interval, f"less than ttl, {session.ttl}: else a session in use would end"


def _touch_interval(loaded: Loaded) -> Iterator[str]:
    for name, value, allowed in touch_interval_problems(loaded.settings.session):
        yield loaded.wrong(f"session.{name}", value, allowed)
