"""Whose word about the client is believed: trusted peers, and what their X-Forwarded-* fields say.

Anybody can send these fields. They count only from a configured peer, and are read from the right, where
the nearest proxy writes: what is left of the first address that is not ours was written by the client
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from stickygw.routing.request_head import Head

MAX_HOPS = 16
"""Entries of X-Forwarded-For that are looked at, from the right."""

UNIX = "unix"
"""The peer on a Unix socket, in settings; its host is ""."""

_LONGEST_ADDRESS = 45  # an IPv6 address with an IPv4 tail
_SECURE = (b"https", b"wss")  # Traefik writes wss for a WebSocket
_Address = IPv4Address | IPv6Address


class TrustedProxies:
    """The peers whose PROXY header and X-Forwarded-* fields are believed.

    `networks` are addresses, networks, or "unix". Raises `ValueError` with one sentence for anything else.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._trusts_unix = UNIX in networks
        self._networks = tuple(_network(text) for text in networks if text != UNIX)

    def trusts(self, host: str) -> bool:
        """Whether `host`, a peer's address or "" on a Unix socket, is believed."""
        if not host:
            return self._trusts_unix
        if not self._networks:
            return False
        address = _address(host)
        return address is not None and self._trusts_address(address)

    def client_of(self, head: Head, host: str) -> tuple[str, bool]:
        """The client's address, and whether the client's side is TLS, for a request that `host` sent.

        From a trusted peer: the rightmost address in X-Forwarded-For that is not trusted itself. An entry
        that is no address ends the search at the hop that wrote it, and so does the end of the list. TLS:
        X-Forwarded-Proto is ``https`` or ``wss``, once. From others: the peer, and no TLS, since this port
        speaks none.
        """
        if not self.trusts(host):
            return (_normal(host) if host.startswith("::") else host), False
        client = _normal(host)
        entries = b",".join(head.get_all(b"x-forwarded-for")).rsplit(b",", MAX_HOPS)[-MAX_HOPS:]
        for entry in reversed(entries):
            text = entry.strip(b" \t").decode("latin-1")
            address = _address(text)
            # The zone of an IPv6 address may be any text, and means nothing on another machine.
            if address is None or "%" in text:
                break
            client = str(address)
            if not self._trusts_address(address):
                break
        schemes = head.get_all(b"x-forwarded-proto")
        return client, len(schemes) == 1 and schemes[0].lower() in _SECURE

    def _trusts_address(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f'{text!r} is no trusted proxy: give an address (10.0.0.7), a network (10.0.0.0/8) or "unix" ({error})'
        ) from None


def _address(text: str) -> _Address | None:
    """The address that `text` is, or None; an IPv4 one in IPv6, as dual-stack listeners have it, is IPv4."""
    if len(text) > _LONGEST_ADDRESS:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _normal(host: str) -> str:
    address = _address(host)
    return host if address is None else str(address)
