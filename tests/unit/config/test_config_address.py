from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.config.address import MAX_PATH_BYTES, Address, AddressKind, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address(AddressKind.TCP, "127.0.0.1", 8000)),
        ("[::1]:0", Address(AddressKind.TCP, "::1", 0)),
        ("[fe80::1%eth0]:80", Address(AddressKind.TCP, "fe80::1%eth0", 80)),
        ("localhost:80", Address(AddressKind.TCP, "localhost", 80)),
        ("a-1.example.com:65535", Address(AddressKind.TCP, "a-1.example.com", 65535)),
        ("unix:/run/gw.sock", Address(AddressKind.UNIX, path="/run/gw.sock")),
        ("unix:/with:colon", Address(AddressKind.UNIX, path="/with:colon")),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "port is missing"),
        ("8000", "port is missing"),
        ("localhost", "port is missing"),
        (":8000", "host is missing"),
        ("localhost:", "port is not a number"),
        ("localhost:65536", "port is not a number"),
        ("localhost:-1", "port is not a number"),
        ("localhost:٨٠", "port is not a number"),
        ("localhost:80\n", "port is not a number"),
        ("::1:8000", "brackets"),
        ("[::1:8000", "bracket"),
        ("[127.0.0.1]:80", "no IPv6 address"),
        ("256.0.0.1:80", "no IPv4 address"),
        ("10.1:80", "no IPv4 address"),
        ("*:80", "neither an IP address nor a host name"),
        ("a b:80", "neither an IP address nor a host name"),
        ("-a:80", "neither an IP address nor a host name"),
        ("http://localhost:80", "brackets"),
        ("unix:relative", "absolute"),
        ("unix:/folder/", "name a file"),
        ("unix:/a\0b", "name a file"),
        ("unix:/" + "a" * MAX_PATH_BYTES, "at most 107 bytes"),
    ],
)
def test_what_is_no_address_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(text)


@given(st.text(alphabet="[]:.%-/unix019af *\0é", max_size=30) | st.text(max_size=30))
def test_any_text_is_an_address_that_reads_back_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
