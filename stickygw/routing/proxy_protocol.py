"""The PROXY protocol, versions 1 and 2: a balancer in front says who the client is, before its own bytes.

After HAProxy's proxy-protocol.txt (2020/03/05). Whether the peer is to be believed is
`stickygw.routing.forwarded`'s business: from anybody else these bytes are no HTTP. Like the gate, every
segmentation gives the same verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from stickygw.routing.request_head import NEED_MORE, NeedMore, Refusal, RefusalReason

MAX_V1_BYTES = 107
"""The longest version 1 header, line break included (§2.1)."""
MAX_V2_BODY_BYTES = 2048
"""Addresses and TLVs of a version 2 header; §2.2 wants 520 at least, and a TLS client's name is longer."""

_V1_START: Final = b"PROXY "
_V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD_BYTES: Final = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the upper half of the byte
_UNSPEC, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}

_V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|"
    rb"TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)
_LENGTH = Struct("!H")


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A complete PROXY header of `size` bytes; the client's own bytes follow.

    `host` is None where the header names nobody (LOCAL, a balancer's own health check; UNKNOWN; a Unix
    socket): the client is then the socket's peer, and `port` is 0.
    """

    size: int
    host: str | None
    port: int


def may_start_proxy_header(data: bytes) -> bool:
    """Whether `data`, the first bytes that came (maybe none), can begin a PROXY header."""
    return data[: len(_V1_START)] == _V1_START[: len(data)] or (
        data[: len(_V2_SIGNATURE)] == _V2_SIGNATURE[: len(data)]
    )


def read_proxy_header(data: bytes) -> ProxyHeader | Refusal | NeedMore:
    """The PROXY header at the start of `data`, all bytes that came so far.

    For every prefix of `data` that is not NEED_MORE the verdict is the same.
    """
    if not may_start_proxy_header(data):
        return _REFUSAL
    if not data:
        return NEED_MORE
    return _read_v2(data) if data[0] == _V2_SIGNATURE[0] else _read_v1(data)


_REFUSAL = Refusal(400, RefusalReason.BAD_PROXY_HEADER, "The PROXY protocol header is malformed.")


def _read_v1(data: bytes) -> ProxyHeader | Refusal | NeedMore:
    end = data.find(b"\r\n", 0, MAX_V1_BYTES)
    if end < 0:
        return NEED_MORE if len(data) < MAX_V1_BYTES else _REFUSAL
    match = _V1_LINE.fullmatch(data, 0, end + 2)
    if match is None:
        return _REFUSAL
    family, source, destination, source_port, destination_port = match.groups()
    if family is None:
        return ProxyHeader(match.end(), None, 0)
    if int(source_port) > 65535 or int(destination_port) > 65535:
        return _REFUSAL
    address = IPv4Address if family == b"4" else IPv6Address
    try:
        address(destination.decode("ascii"))
        return ProxyHeader(match.end(), _text(address(source.decode("ascii"))), int(source_port))
    except AddressValueError:
        return _REFUSAL


def _read_v2(data: bytes) -> ProxyHeader | Refusal | NeedMore:
    # Each byte is judged as soon as it is there, and in their order: the verdict of a prefix is the verdict
    # of the whole.
    after = data[len(_V2_SIGNATURE) : len(_V2_SIGNATURE) + 2]
    if after and after[0] not in (_LOCAL, _PROXY):
        return _REFUSAL
    if len(after) < 2:
        return NEED_MORE
    command, family = after
    if command == _LOCAL:
        family = _UNSPEC  # its family and addresses are to be skipped unread (§2.2)
    if family not in _ADDRESS_BYTES:
        return _REFUSAL  # datagrams cannot come over a stream, and unknown families must be refused (§2.2)
    if len(data) < _V2_HEAD_BYTES:
        return NEED_MORE
    (length,) = _LENGTH.unpack_from(data, _V2_HEAD_BYTES - 2)
    if not _ADDRESS_BYTES[family] <= length <= MAX_V2_BODY_BYTES:
        return _REFUSAL
    size = _V2_HEAD_BYTES + length
    if len(data) < size:
        return NEED_MORE
    addresses = data[_V2_HEAD_BYTES:size]
    if family == _TCP4:
        return ProxyHeader(size, _text(IPv4Address(addresses[:4])), _LENGTH.unpack_from(addresses, 8)[0])
    if family == _TCP6:
        return ProxyHeader(size, _text(IPv6Address(addresses[:16])), _LENGTH.unpack_from(addresses, 32)[0])
    return ProxyHeader(size, None, 0)


def _text(address: IPv4Address | IPv6Address) -> str:
    """An IPv4 address in an IPv6 one is the same client as without."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
