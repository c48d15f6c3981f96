"""Who the client is behind proxies, and whose word counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_heads import head

from stickygw.routing.forwarded import MAX_HOPS, TrustedProxies

BALANCER = "10.0.0.1"
CLIENT = "192.0.2.7"


def client(*forwarded: str, proto: str = "", host: str = BALANCER, trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> str:
    return client_of(*forwarded, proto=proto, host=host, trusted=trusted)[0]


def client_of(
    *forwarded: str, proto: str = "", host: str = BALANCER, trusted: tuple[str, ...] = ("10.0.0.0/8",)
) -> tuple[str, bool]:
    fields = [("X-Forwarded-For", value) for value in forwarded]
    if proto:
        fields.append(("X-Forwarded-Proto", proto))
    return TrustedProxies(trusted).client_of(head(extra=fields), host)


def test_nobody_is_trusted_by_default() -> None:
    assert client_of(CLIENT, proto="https", trusted=()) == (BALANCER, False)
    assert not TrustedProxies(()).trusts("")


def test_untrusted_peer_cannot_name_another_client() -> None:
    assert client_of(CLIENT, proto="https", host="203.0.113.5") == ("203.0.113.5", False)


def test_trusted_proxy_names_the_client() -> None:
    assert client(CLIENT) == CLIENT
    assert client("2001:DB8::7") == "2001:db8::7"


def test_what_the_client_wrote_itself_does_not_count() -> None:
    assert client(f"127.0.0.1, {CLIENT}") == CLIENT
    assert client("127.0.0.1", CLIENT) == CLIENT


def test_trusted_hops_are_skipped_from_the_right() -> None:
    assert client(f"198.51.100.1, {CLIENT} ,10.0.0.3,\t10.0.0.2") == CLIENT


def test_where_all_hops_are_trusted_the_first_is_the_client() -> None:
    assert client("10.0.0.9, 10.0.0.2") == "10.0.0.9"


@pytest.mark.parametrize("entry", ["unknown", "", "1.2.3.4:80", "[::1]", "fe80::1%eth0", "\xff", "1" * 99])
def test_entry_that_is_no_address_ends_the_search(entry: str) -> None:
    assert client(f"{CLIENT}, {entry}, 10.0.0.2") == "10.0.0.2"
    assert client(f"{CLIENT}, {entry}") == BALANCER


def test_no_field_leaves_the_peer() -> None:
    assert client() == BALANCER


def test_only_so_many_hops_are_looked_at() -> None:
    assert client(", ".join([CLIENT, *["10.0.0.2"] * (MAX_HOPS - 1)])) == CLIENT
    assert client(", ".join([CLIENT, *["10.0.0.2"] * MAX_HOPS])) == "10.0.0.2"


@pytest.mark.parametrize(
    ("proto", "is_secure"), [("https", True), ("HTTPS", True), ("wss", True), ("http", False), ("https,http", False)]
)
def test_trusted_proxy_says_whether_the_client_speaks_tls(proto: str, is_secure: bool) -> None:
    assert client_of(CLIENT, proto=proto) == (CLIENT, is_secure)


def test_two_fields_about_tls_are_believed_by_nobody() -> None:
    request = head(extra=[("X-Forwarded-Proto", "http"), ("X-Forwarded-Proto", "https")])

    assert TrustedProxies([BALANCER]).client_of(request, BALANCER) == (BALANCER, False)


def test_ipv4_address_in_ipv6_is_the_same_client() -> None:
    assert client(host="::ffff:203.0.113.5") == "203.0.113.5"
    assert client(f"::ffff:{CLIENT}", host="::ffff:10.0.0.1") == CLIENT
    assert client("::ffff:10.0.0.9, ::ffff:10.0.0.2") == "10.0.0.9"


def test_unix_peer_is_trusted_only_by_name() -> None:
    assert client(CLIENT, host="", trusted=("unix",)) == CLIENT
    assert client(CLIENT, host="", trusted=("10.0.0.0/8", "::/0")) == ""
    assert client(CLIENT, host=BALANCER, trusted=("unix",)) == BALANCER


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "", "UNIX"])
def test_bad_setting_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no trusted proxy: give an address") as caught:
        TrustedProxies([text])
    assert repr(text) in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.sampled_from([CLIENT, "10.0.0.2", "nonsense", "::1", "198.51.100.1"]), max_size=20))
def test_client_cannot_change_the_verdict_by_what_it_puts_in_front(spoofed: list[str]) -> None:
    assert client(", ".join([*spoofed, CLIENT, "10.0.0.2"])) == CLIENT
