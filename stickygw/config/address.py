"""An address to listen on and its text: ``127.0.0.1:8000``, ``[::1]:0``, ``localhost:80``, ``unix:/path``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

MAX_PATH_BYTES = 107
"""What Linux's ``sun_path`` holds beside its final NUL (unix(7))."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")


class AddressKind(Enum):
    """The two families of addresses."""

    TCP = "tcp"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class Address:
    """TCP: `host` (an IP address without brackets, or a name) and `port`, 0 for one of the system's choice.

    UNIX: `path`, absolute.
    """

    kind: AddressKind
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind is AddressKind.UNIX:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address in `text`. Raises `ValueError` that says what is wrong with it."""
    if text.startswith("unix:"):
        return _unix_address(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("the port is missing")
    if ":" in host and not host.startswith("["):
        raise ValueError("an IPv6 address wants brackets")
    if not _PORT.match(port) or int(port) > 65_535:
        raise ValueError("the port is not a number from 0 to 65535")
    if host.startswith("["):
        return Address(AddressKind.TCP, _ipv6(host), int(port))
    _check_host(host)
    return Address(AddressKind.TCP, host, int(port))


def _unix_address(path: str) -> Address:
    if not path.startswith("/"):
        raise ValueError("the path of a Unix socket must be absolute: unix:/path")
    if "\0" in path or path.endswith("/"):
        raise ValueError("the path of a Unix socket must name a file")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket may have at most {MAX_PATH_BYTES} bytes")
    return Address(AddressKind.UNIX, path=path)


def _ipv6(bracketed: str) -> str:
    host = bracketed[1:-1]
    if not bracketed.endswith("]"):
        raise ValueError("the bracket of the IPv6 address is not closed")
    try:
        IPv6Address(host)
    except ValueError as error:
        raise ValueError(f"no IPv6 address: {error}") from error
    return host


def _check_host(host: str) -> None:
    if not host:
        raise ValueError("the host is missing; 0.0.0.0 is every IPv4 address, [::] every IPv6 one")
    labels = host.split(".")
    if labels[-1].isdigit():  # no name ends in a number, so this is meant as an IPv4 address
        try:
            IPv4Address(host)
        except ValueError as error:
            raise ValueError(f"no IPv4 address: {error}") from error
    elif len(host) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError("the host is neither an IP address nor a host name")
