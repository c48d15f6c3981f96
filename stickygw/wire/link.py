"""The messages of a link, the Unix socket between the primary and one worker, and their bytes.

A message is a msgpack array ``[tag, field, …]`` in one datagram (SOCK_SEQPACKET), at most `MAX_MESSAGE_BYTES` long.
An `Offer` carries the connection's file descriptor beside its bytes.

=============  =================  ==================================================================
message        direction          meaning
=============  =================  ==================================================================
`Configure`    primary → worker   the first message: who the worker is and what it runs
`Offer` + fd   primary → worker   a connection whose head is complete and unread
`Stop`         primary → worker   take no more, close what is open, end
`Ready`        worker → primary   the application has started; connections may come
`Failed`       worker → primary   the application cannot start; why
`Taken`        worker → primary   these offers are the worker's now; the primary closes its copies
`Declined`     worker → primary   this offer was not touched; route it again
`Ended`        worker → primary   these connections are over
=============  =================  ==================================================================
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields
from enum import StrEnum
from typing import Any

import msgpack

from stickygw.types import GatewayId, HandOverId, SessionId, Slot

MAX_MESSAGE_BYTES = 128 * 1024
"""Below the largest datagram that Linux's default buffers take, 212,960 bytes (measured)."""


class DeclineReason(StrEnum):
    """Why a worker did not take an offer."""

    FULL = "full"
    STOPPING = "stopping"
    NO_DESCRIPTOR = "no_descriptor"
    """The datagram came without its descriptor: the worker is at its RLIMIT_NOFILE (MSG_CTRUNC)."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Who the worker is and what it runs. `settings` is `Settings.to_wire()`."""

    slot: Slot
    generation: int
    workers: int
    gateway: GatewayId
    target: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """A connection, with the primary's decision about it.

    `session` is the id that the client's cookie proved, or None; `issued` is when that cookie was signed (Unix
    seconds, 0 without one). `sets_cookie`: the worker's answer names its own slot in a new cookie. `host` and `port`
    are the client's, behind trusted proxies too ("" on a Unix socket); `is_secure`: its side is TLS.
    """

    id: HandOverId
    session: SessionId | None = field(repr=False)  # a credential, and reprs reach logs
    issued: int
    sets_cookie: bool
    host: str
    port: int
    is_secure: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End within `grace_seconds`. `spread_seconds`: over how long the clients are asked to come back."""

    grace_seconds: float
    spread_seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The application has started."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The application cannot start; `reason` is one line, the traceback is in the worker's log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Taken:
    """These offers are the worker's now."""

    ids: list[HandOverId]


@dataclass(frozen=True, slots=True)
class Declined:
    """This offer was not touched. `id` is in the bytes, so it is known even when the descriptor was lost."""

    id: HandOverId
    why: DeclineReason


@dataclass(frozen=True, slots=True)
class Ended:
    """These connections, once taken, are over."""

    ids: list[HandOverId]


Message = Configure | Offer | Stop | Ready | Failed | Taken | Declined | Ended

_TYPES: tuple[type[Message], ...] = (Configure, Offer, Stop, Ready, Failed, Taken, Declined, Ended)
_TAGS = {kind: tag for tag, kind in enumerate(_TYPES)}
_FIELD_COUNTS = tuple(len(fields(kind)) for kind in _TYPES)


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
            message.sets_cookie,
            message.host,
            message.port,
            message.is_secure,
            message.reason,
        )
    elif isinstance(message, Taken | Ended):
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
        body = msgpack.unpackb(data)
        kind = _TYPES[body[0]]
        arguments = body[1:]
        if len(arguments) != _FIELD_COUNTS[body[0]]:
            raise LinkError(f"a {kind.__name__} with {len(arguments)} fields")
        if kind is Declined:
            return Declined(arguments[0], DeclineReason(arguments[1]))
        message: Message = kind(*arguments)
    except LinkError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException) as error:
        raise LinkError(f"{len(data)} bytes that are no link message: {error}") from error
    return message
