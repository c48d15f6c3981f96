"""The bytes of a link's messages.

A message is a msgpack array ``[tag, field, …]`` in one datagram (SOCK_SEQPACKET), at most `MAX_MESSAGE_BYTES` long.
Some carry a file descriptor beside their bytes.
"""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

import msgpack

from stickygw.wire.link import (
    Answer,
    Answered,
    Blocked,
    Came,
    Configure,
    Declined,
    DeclineReason,
    Deliver,
    Drain,
    Ended,
    Exits,
    Failed,
    Heartbeat,
    Hold,
    Holdings,
    Learn,
    Learnt,
    Message,
    Moved,
    MoveIn,
    MoveOut,
    Offer,
    Orphan,
    Ready,
    Resize,
    Stop,
    Stream,
    Taken,
    Tell,
)

MAX_MESSAGE_BYTES = 128 * 1024
"""Below the largest datagram that Linux's default buffers take, 212,960 bytes (measured)."""

_TYPES: dict[int, type[Message]] = {
    1: Configure,
    2: Offer,
    3: MoveIn,
    4: MoveOut,
    5: Drain,
    6: Stop,
    7: Resize,
    8: Deliver,
    9: Answered,
    10: Learnt,
    11: Hold,
    12: Ready,
    13: Failed,
    14: Heartbeat,
    15: Blocked,
    16: Taken,
    17: Declined,
    18: Ended,
    19: Came,
    20: Moved,
    21: Tell,
    22: Answer,
    23: Learn,
    24: Exits,
    25: Holdings,
    26: Orphan,
    27: Stream,
}
"""A number that was once given to a message is never another's: each side may be of a later version than the other.

So the fields of `Hold`, `Holdings` and `Orphan` stay what they are, too. Of other messages one that the other side does
not know is left out there, which costs no connection.
"""

_TAGS = {kind: tag for tag, kind in _TYPES.items()}
_FIELD_COUNTS = {kind: len(fields(kind)) for kind in _TAGS}


class LinkError(ValueError):
    """Bytes on a link that are no message: the other side is of another version, or broken."""


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises `LinkError` when it would be longer than `MAX_MESSAGE_BYTES`."""
    if isinstance(message, Offer):  # the hot one: no reflection
        body: tuple[Any, ...] = (
            _TAGS[Offer],
            message.id,
            message.session,
            message.issued,
            message.cookie_slot,
            message.host,
            message.port,
            message.is_secure,
            message.reason,
            message.key,
        )
    elif isinstance(message, Taken | Ended | Came):
        body = (_TAGS[type(message)], message.ids)
    else:
        body = (_TAGS[type(message)], *astuple(message))
    data: bytes = msgpack.packb(body)
    if len(data) > MAX_MESSAGE_BYTES:
        raise LinkError(f"a {type(message).__name__} of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} fit a link")
    return data


def decode(data: bytes) -> Message:
    """The message in `data`. Raises `LinkError` for anything that `encode` does not make."""
    try:
        body = msgpack.unpackb(data, strict_map_key=False)  # a report's maps may have numbers as keys
        if type(body) is not list or type(body[0]) is not int:
            raise LinkError(f"{len(data)} bytes that are no link message")
        kind = _TYPES[body[0]]
        arguments = body[1:]
        if len(arguments) != _FIELD_COUNTS[kind]:
            raise LinkError(f"a {kind.__name__} with {len(arguments)} fields")
        if kind is Declined:
            return Declined(arguments[0], DeclineReason(arguments[1]))
        message: Message = kind(*arguments)
    except LinkError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException) as error:
        raise LinkError(f"{len(data)} bytes that are no link message: {error}") from error
    return message
