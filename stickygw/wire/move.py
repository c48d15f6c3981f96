"""What two workers say to each other on a move link, as msgpack; `docs/explanation/live-move.md` is the whole story.

=============  =====  ===============================================================================
`Rooms`        →      the addresses that connections will come for; more of them may follow
`Listening`    ←      what is published at these addresses is recorded from now on
`Copy`         ⇄      an envelope that the sender has published; it may go through the store as well
`Settled`      ⇄      what the sender published before its first copy, the store has answered
`Positions`    →      what the connections behind it have received, by address
`Carried`      →      a connection, with its socket beside it, and its state in a memory file if it is long
`Adopted`      ←      this connection is the new worker's: nothing of it was touched before this is sent
`Refused`      ←      this one cannot be taken; why
`Finished`     →      no more connections come
`Finished`     ←      all that was sent before that has been read; if more workers take part, the store was waited for
`Keys`         →      affinity keys whose application state will come; more of them may follow
`KeyState`     →      the application state of one, in a memory file if it is long; its connections come later
`KeyStays`     →      that of this one does not come
`KeyTaken`     ←      the application has it here: connections of that key may come
`KeyRefused`   ←      it has not; why
=============  =====  ===============================================================================

→ is from the old worker to the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import get_args, get_type_hints

import msgpack

from stickygw.types import MAX_SLOTS, HandOverId
from stickygw.wire.shapes import is_of

VERSION = 1
"""Of these messages and of the state in `Carried`. Who reads another one refuses."""

MAX_MESSAGE_BYTES = 128 * 1024
"""Below the largest datagram that Linux's default buffers take, 212,960 bytes (measured)."""

MAX_STATE_BYTES = 64 * 1024
"""A longer state travels in a memory file, the second descriptor beside its `Carried`."""

ADDRESSES_PER_MESSAGE = 256
"""Addresses in one `Rooms` or `Positions`: of at most some 200 bytes each they stay below `MAX_MESSAGE_BYTES`."""


ADDRESS_BYTES = 256
"""An address in a message, at most: its name has 200 bytes of UTF-8."""

ORIGIN_BYTES = 20
"""An origin and its number, at most."""

COPIED_BYTES = ORIGIN_BYTES * MAX_SLOTS
"""The origins of all workers to which one may give connections, at most."""

KEY_HEAD_BYTES = 16
"""What msgpack puts before a key, or around them all, at most."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """Addresses at which members are, who will come. `version` is `VERSION`."""

    version: int
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class Listening:
    """`number` counts them, from 1. An address that is named again was not recorded for a while."""

    number: int
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class Copy:
    """`data`: an envelope on `channel`; b"": it is in the memory file beside, being longer than a datagram takes."""

    channel: bytes
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settled:
    """See the module's table. `origin` is the sender's, of its copies too."""

    origin: bytes


@dataclass(frozen=True, slots=True)
class Positions:
    """By address: origin → the last number that was received, by the connections up to the next `Positions`.

    `pinged` is the `Listening` before which whatever was published has come to the old worker. `copied`: origins of
    which that has copies, which the store may not have. `is_last`: it has no further part.
    """

    pinged: int
    by_address: dict[str, dict[bytes, int]]
    copied: list[bytes]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Carried:
    """`state` is `stickygw.apps.native.carried`'s; b"": it is in the memory file."""

    id: HandOverId
    state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Adopted:
    """See the module's table."""

    id: HandOverId


@dataclass(frozen=True, slots=True)
class Refused:
    """`why` is one line for the log."""

    id: HandOverId
    why: str


@dataclass(frozen=True, slots=True)
class Finished:
    """See the module's table."""


@dataclass(frozen=True, slots=True)
class Keys:
    """See the module's table. `is_complete`: these are, with those before, all that the sender has had so far."""

    keys: list[bytes] = field(repr=False)  # one may be an id that the application minted
    is_complete: bool


@dataclass(frozen=True, slots=True)
class KeyState:
    """`state` is `stickygw.apps.native.key_state`'s; b"": it is in the memory file."""

    key: bytes = field(repr=False)
    state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyStays:
    """See the module's table."""

    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyTaken:
    """See the module's table."""

    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """`why` is one line for the log."""

    key: bytes = field(repr=False)
    why: str


def pages_of(keys: Iterable[bytes]) -> list[Keys]:
    """`keys` in messages that each fit, of which the last says that they are complete: at least one."""
    pages: list[list[bytes]] = [[]]
    size = 0
    for key in keys:
        size += len(key) + KEY_HEAD_BYTES
        if size > MAX_MESSAGE_BYTES - KEY_HEAD_BYTES and pages[-1]:
            pages.append([])
            size = len(key) + KEY_HEAD_BYTES
        pages[-1].append(key)
    return [Keys(page, number == len(pages)) for number, page in enumerate(pages, start=1)]


def parts_of(positions: Mapping[str, dict[bytes, int]]) -> list[dict[str, dict[bytes, int]]]:
    """`positions` in parts that each fit a `Positions`: at least one. Of one address they are bounded where they are
    kept (`stickygw.bridge.sequences.MAX_ORIGINS_PER_ROOM`)."""
    parts: list[dict[str, dict[bytes, int]]] = [{}]
    size = 0
    for address, position in positions.items():
        size += ADDRESS_BYTES + ORIGIN_BYTES * len(position)
        if size > MAX_MESSAGE_BYTES - ADDRESS_BYTES - COPIED_BYTES and parts[-1]:
            parts.append({})
            size = ADDRESS_BYTES + ORIGIN_BYTES * len(position)
        parts[-1][address] = position
    return parts


MoveMessage = (
    Rooms | Listening | Copy | Settled | Positions | Carried | Adopted | Refused | Finished
    | Keys | KeyState | KeyStays | KeyTaken | KeyRefused
)  # fmt: skip

_TYPES: tuple[type[MoveMessage], ...] = get_args(MoveMessage)
_TAGS = {kind: tag for tag, kind in enumerate(_TYPES)}
_SHAPES = [[is_of(hint) for hint in get_type_hints(kind).values()] for kind in _TYPES]


class MoveError(ValueError):
    """What came on a move link is nothing that this version knows."""


def encode(message: MoveMessage) -> bytes:
    """The bytes of a message. Raises `MoveError` when it would be longer than `MAX_MESSAGE_BYTES`."""
    values = tuple(getattr(message, field.name) for field in fields(message))
    data: bytes = msgpack.packb((_TAGS[type(message)], *values))
    if len(data) > MAX_MESSAGE_BYTES:
        raise MoveError(f"a {type(message).__name__} of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} fit")
    return data


def decode(data: bytes) -> MoveMessage:
    """The message in `data`. Raises `MoveError` for anything that `encode` does not make."""
    try:
        body = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MoveError(f"{len(data)} bytes that are no message of a move: {error}") from error
    if not (type(body) is list and body and type(body[0]) is int and 0 <= body[0] < len(_TYPES)):
        raise MoveError(f"{len(data)} bytes that are no message of a move")
    tag, *values = body
    kind, shape = _TYPES[tag], _SHAPES[tag]
    if len(values) != len(shape) or not all(is_right(value) for is_right, value in zip(shape, values, strict=True)):
        raise MoveError(f"a {kind.__name__} with other fields than this version's")
    return kind(*values)
