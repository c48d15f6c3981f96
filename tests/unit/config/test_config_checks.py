from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from stickygw.config.checks import MAKE_SECRET, broken_rules
from stickygw.config.sources import load_settings
from stickygw.errors import SettingsError

SECRET = "s" * 32


def broken(**flags: Any) -> list[str]:
    named = {name.replace("redis_url", "redis.url"): value for name, value in flags.items()}
    return broken_rules(load_settings(named, spelled={"redis.url": "--redis"}, environ={}, directory=Path("/")))


def test_the_defaults_break_no_rule() -> None:
    assert broken() == []


def test_a_redis_of_ones_own_wants_a_secret_and_the_error_says_how_to_make_one() -> None:
    [line] = broken(redis_url="redis://host")
    assert line.startswith("secret: not given, but redis.url is (from flag --redis)")
    assert MAKE_SECRET in line
    assert broken(redis_url="redis://host", secret=[SECRET]) == []


def test_a_secret_has_at_least_32_bytes() -> None:
    [line] = broken(secret=[SECRET, SECRET[1:], "ä" * 16])
    assert line.startswith("secret: key 2 of 3 has 31 bytes (from flag --secret); allowed: at least 32 bytes")
    assert SECRET[1:] not in line


@pytest.mark.parametrize(
    "url", ["redis://host", "rediss://u:p@host:6380/1", "redis://[::1]:6379", "unix:///run/valkey.sock?db=1"]
)
def test_a_redis_url_has_one_of_three_forms(url: str) -> None:
    assert broken(redis_url=url, secret=[SECRET]) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host", "http://host"),
        ("host:6379", "host:6379"),
        ("redis://", "redis://"),
        ("redis://:hunter2@host:port", "redis://:***@host:port"),
        ("redis://[::1", "redis://[::1"),
        ("unix://", "unix://"),
    ],
)
def test_another_redis_url_is_refused_and_shown_without_its_password(url: str, shown: str) -> None:
    assert broken(redis_url=url, secret=[SECRET]) == [
        f'redis.url: "{shown}" is not allowed (from flag --redis); '
        "allowed: redis://HOST:PORT, rediss://HOST:PORT or unix:///path"
    ]


def test_each_wrong_address_is_told() -> None:
    assert broken(bind=["127.0.0.1:80", "80", "unix:x"]) == [
        'bind: "80" is not allowed (from flag --bind); '
        "allowed: HOST:PORT, [IPv6]:PORT or unix:/path (the port is missing)",
        'bind: "unix:x" is not allowed (from flag --bind); '
        "allowed: HOST:PORT, [IPv6]:PORT or unix:/path (the path of a Unix socket must be absolute: unix:/path)",
    ]


def test_an_address_is_bound_once_but_port_0_as_often_as_one_likes() -> None:
    assert broken(bind=["127.0.0.1:0", "127.0.0.1:0"]) == []
    assert broken(bind=["127.0.0.1:80", "127.0.0.1:80"]) == [
        'bind: "127.0.0.1:80" is not allowed (from flag --bind); allowed: each address once'
    ]


@pytest.mark.parametrize("origin", ["same-host", "*", "https://e.com", "http://[::1]:8080", "tauri://localhost"])
def test_an_origin_is_written_as_browsers_send_it(origin: str) -> None:
    assert broken(origins=[origin]) == []


@pytest.mark.parametrize("origin", ["https://e.com/", "https://E.com", "e.com", "null", "https://*.e.com", "https://"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    [line] = broken(origins=[origin])
    assert line.startswith(f'origins: "{origin}" is not allowed (from flag --origins); allowed: "same-host"')


@pytest.mark.parametrize(
    "url", ["https://eu1.example.com", "http://10.0.0.1:8000", "wss://eu1.example.com:443", "ws://[::1]:8000"]
)
def test_a_gateway_s_own_url_is_a_scheme_and_a_place(url: str) -> None:
    assert broken(public_url=url) == []
    assert load_settings({"public_url": url}, environ={}, directory=Path("/")).settings.public_url == url


@pytest.mark.parametrize(
    "url",
    [
        "eu1.example.com",
        "ftp://eu1.example.com",
        "https://eu1.example.com/",
        "https://eu1.example.com/games",
        "https://eu1.example.com?a=b",
        "https://eu1.example.com#a",
        "https://me@eu1.example.com",
        "https://EU1.example.com",
        "https://",
        "https://:443",
        "https://eu1.example.com:",
        "https://eu1.example.com:0",
        "https://eu1.example.com:65536",
        "https://eu1..example.com",
        "https://10.0.0.256",
        "https://[::1",
        "https://[::g]",
        "https://eu1.example.com\n",
    ],
)
def test_a_gateway_s_own_url_has_nothing_else(url: str) -> None:
    [line] = broken(public_url=url)
    assert line.startswith("public_url: ")
    assert line.endswith("allowed: http(s)://HOST, ws(s)://HOST, with a :PORT perhaps, in lower case, no path")


def test_watching_wants_a_package_and_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken(watch=True) == []
    monkeypatch.setitem(sys.modules, "watchfiles", None)  # as if it were not installed
    assert broken(watch=False) == []
    assert broken(watch=True) == [
        "watch: wanted (from flag --watch), but the package watchfiles is not installed; pip install 'stickygw[watch]'"
    ]


# The cookie


def cookie_rules(
    *, proxies: tuple[str, ...] = (), origins: tuple[str, ...] = ("same-host",), **options: Any
) -> list[str]:
    named = {f"cookie.{name}": value for name, value in options.items()}
    named |= {"trusted_proxies": proxies, "origins": origins}
    return broken_rules(load_settings(named, environ={}, directory=Path("/")))


@pytest.mark.parametrize("name", ["__Host-s", "__host-s"])
def test_a_host_cookie_has_no_domain_and_no_path_but_the_root(name: str) -> None:
    assert cookie_rules(name=name) == []
    domain, path = cookie_rules(name=name, domain="example.com", path="/app")
    assert domain.startswith('cookie.domain: "example.com" is not allowed (from flag --cookie.domain); allowed: none')
    assert path.startswith('cookie.path: "/app" is not allowed (from flag --cookie.path); allowed: "/"')
    assert domain.endswith(f", since its name is {name}")
    assert cookie_rules(name="__Secure-s", domain="example.com", path="/app") == []


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"same_site": "None"}, 'cookie.same_site: "None" is not allowed (from flag --cookie.same-site); allowed: Lax'),
        (
            {"partitioned": True},
            "cookie.partitioned: true is not allowed (from flag --cookie.partitioned); allowed: false",
        ),
    ],
)
def test_a_cookie_that_has_to_be_secure_needs_tls_in_front(options: dict[str, Any], start: str) -> None:
    [line] = cookie_rules(**options)
    assert line.startswith(start)
    assert "trusted_proxies" in line
    assert cookie_rules(**options, proxies=("10.0.0.0/8",)) == []
    for name in ("__Host-s", "__Secure-s"):
        assert cookie_rules(**options, name=name) == []


def test_a_cookie_of_every_site_s_requests_is_not_for_pages_of_every_site() -> None:
    [line] = cookie_rules(name="__Host-s", same_site="None", origins=("*",))
    assert line.startswith('origins: "*" is not allowed')
    assert cookie_rules(name="__Host-s", same_site="None", origins=("https://example.com",)) == []
    assert cookie_rules(name="__Host-s", origins=("*",)) == []


@pytest.mark.parametrize(
    "domain",
    [
        *("com", "localhost", ".example.com", "example.com.", "Example.com", "192.0.2.1", "[::1]"),
        *("", "a..b", "-a.com", "a b.com", "a.com; Secure", f"{'a' * 64}.com", ".".join(["a" * 60] * 5)),
    ],
)
def test_a_domain_that_browsers_refuse_is_refused_here(domain: str) -> None:
    with pytest.raises(SettingsError, match=r"cookie\.domain"):
        cookie_rules(domain=domain)


@pytest.mark.parametrize("domain", ["example.com", "a.b-c.example.co.uk", "xn--bcher-kva.example", "1.example.com"])
def test_a_domain_is_a_host_name_in_lower_case(domain: str) -> None:
    assert cookie_rules(domain=domain) == []


@pytest.mark.parametrize("path", ["", "app", "/a b", "/a;Secure", "/ä", "/\n", "/" + "a" * 1024])
def test_a_path_that_could_be_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match=r"cookie\.path"):
        cookie_rules(path=path)


def test_the_touch_interval_is_below_the_ttl() -> None:
    def rules(ttl: int, interval: float) -> list[str]:
        named = {"session.ttl": ttl, "session.touch_interval": interval}
        return broken_rules(load_settings(named, environ={}, directory=Path("/")))

    assert rules(60, 59.5) == []
    [line] = rules(60, 60)
    assert line.startswith("session.touch_interval: 60")
