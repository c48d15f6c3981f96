"""The messages of a link, the Unix socket between the primary and one worker, and their bytes.

A message is a msgpack array ``[tag, field, …]`` in one datagram (SOCK_SEQPACKET), at most `MAX_MESSAGE_BYTES` long.
An `Offer` carries the connection's file descriptor beside its bytes.

=============  =================  ======================================================================================
message        direction          meaning
=============  =================  ======================================================================================
`Configure`    primary → worker   the first message: who the worker is and what it runs
`Offer` + fd   primary → worker   a connection whose head is complete and unread
`MoveIn` + fd  primary → worker   connections of the slot's worker before come over this move link
`Drain` (+ fd) primary → worker   another has the slot: take no more, move what can move over this move link, close the
                                  rest with 1012, end
`Stop`         primary → worker   the gateway stops: take no more, close what is open with 1001, end
`Resize`       primary → worker   how many slots there are now
`Deliver`      primary → worker   what another worker, or a command, tells or asks this one
`Answered`     primary → worker   the answer to this worker's own question
`Learnt`       primary → worker   the ids of a `Learn` lead to its slot from now on
`Ready`        worker → primary   the application has started; connections may come
`Failed`       worker → primary   the application cannot start; why
`Heartbeat`    worker → primary   the event loop turns; how the worker is
`Blocked`      worker → primary   the event loop does not turn; where it stands
`Taken`        worker → primary   these offers are the worker's now; the primary closes its copies
`Declined`     worker → primary   this offer was not touched; route it again
`Ended`        worker → primary   these connections are over
`Came`         worker → primary   these connections, of another worker until now, are this one's
`Moved`        worker → primary   the move is over; what became of its connections
`Learn`        worker → primary   the application has minted these ids; they are to lead here
`Tell`         worker → primary   a message for other workers
`Answer`       worker → primary   the answer to a question that was delivered
=============  =================  ======================================================================================
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields
from enum import StrEnum
from typing import Any, get_args

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
    seconds, 0 without one). `cookie_slot`: what a cookie in the worker's answer names; None: the client's own is right.
    `host` and `port` are the client's, behind trusted proxies too ("" on a Unix socket); `is_secure`: its side is TLS.
    `key` is the affinity key that decided, if one did.
    """

    id: HandOverId
    session: SessionId | None = field(repr=False)  # a credential, and reprs reach logs
    issued: int
    cookie_slot: Slot | None
    host: str
    port: int
    is_secure: bool
    reason: str
    key: bytes | None = field(default=None, repr=False)  # it may be an id that the application minted


@dataclass(frozen=True, slots=True)
class Stop:
    """End within `grace_seconds`. `spread_seconds`: over how long the clients are asked to come back."""

    grace_seconds: float
    spread_seconds: float


@dataclass(frozen=True, slots=True)
class MoveIn:
    """See the module's table and `stickygw.wire.move`."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Another worker has the slot, or nobody: end within `grace_seconds`. A `Stop` may still come after it.

    With a move link beside it, connections that can move go to the slot's next worker. The others, or all of them, are
    closed with 1012, one after the other over `spread_seconds` if they are all.
    """

    grace_seconds: float
    spread_seconds: float


@dataclass(frozen=True, slots=True)
class Resize:
    """The gateway has `workers` slots now."""

    workers: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """`payload` (msgpack) for the ``on_tell(name)`` handlers. `sender` is a slot, or "command".

    `ticket` is 0 for what is told; for what is asked it goes back in the `Answer`.
    """

    ticket: int
    sender: int | str
    name: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of this worker's `Tell` with `id`: the answer's `payload` (msgpack), or an `error` that is not ""."""

    id: int
    payload: bytes = field(repr=False)
    error: str


@dataclass(frozen=True, slots=True)
class Learnt:
    """The keys of the `Learn` with `ticket` are in the table: the answer that names them may leave."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The application has started."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The application cannot start; `reason` is one line, the traceback is in the worker's log."""

    reason: str


HEARTBEAT_SECONDS = 1.0
"""How often a worker sends a `Heartbeat`."""

MAX_COUNTED = 500
"""Counts in one of them: they stay far below a link message's bound, and the rest comes with the next."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent every `HEARTBEAT_SECONDS` while the event loop turns.

    `lag`: the longest that the loop was late, in seconds, since the last one. `served`: connections taken so far;
    `queued`: messages that wait for a handler or a slow client now; `received`, `sent`: messages so far. `cpu`: of one
    CPU, 1.0 is all of it. `rss`: bytes of resident memory. `report`: what the application said with `App.report`.
    `counted`: names, labels and how much was counted since the last one that was sent, at most `MAX_COUNTED` of them.
    """

    lag: float
    connections: int
    served: int
    queued: int
    received: int
    sent: int
    cpu: float
    rss: int
    report: dict[str, Any]
    counted: list[tuple[str, str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Blocked:
    """The event loop has not turned for `seconds`; `where` is the application's innermost and outermost line."""

    where: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Learn:
    """The application gave a client these ids, as affinity keys (`stickygw.routing.keys`); they are to lead here."""

    ticket: int
    keys: list[bytes] = field(repr=False)  # an id may be a credential


@dataclass(frozen=True, slots=True)
class Tell:
    """`payload` (msgpack) for the workers `to`: "all", "least_loaded" or a slot. `id` is 0 if no answer is wanted."""

    id: int
    to: int | str
    name: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the `Deliver` with `ticket`: `payload` (msgpack), or an `error` that is not ""."""

    ticket: int
    payload: bytes = field(repr=False)
    error: str


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


@dataclass(frozen=True, slots=True)
class Came:
    """These connections, which another worker had taken, are this one's now."""

    ids: list[HandOverId]


@dataclass(frozen=True, slots=True)
class Moved:
    """So many connections have another worker; so many were closed since that one refused them; so many are left, to be
    closed one after the other."""

    moved: int
    refused: int
    left: int


ToWorker = Configure | Offer | MoveIn | Drain | Stop | Resize | Deliver | Answered | Learnt
ToPrimary = Ready | Failed | Heartbeat | Blocked | Taken | Declined | Ended | Came | Moved | Tell | Answer | Learn
Message = ToWorker | ToPrimary

_TYPES: tuple[type[Message], ...] = (*get_args(ToWorker), *get_args(ToPrimary))
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
        if type(body) is not list or type(body[0]) is not int or body[0] < 0:
            raise LinkError(f"{len(data)} bytes that are no link message")
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
