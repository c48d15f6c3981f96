"""The messages of a link, the Unix socket between the primary and one worker. Their bytes are `link_codec`'s.

What a message means it means for good: a primary of a later version adopts the workers of this one.

=============  =================  ======================================================================================
message        direction          meaning
=============  =================  ======================================================================================
`Configure`    primary → worker   the first message: who the worker is and what it runs
`Offer` + fd   primary → worker   a connection whose head is complete and unread
`MoveIn` + fd  primary → worker   connections of another worker come over this move link; before any offer that belongs
                                  with them
`MoveOut` + fd primary → worker   a worker that takes connections over this move link: one of these for each, before the
                                  `Drain`
`Drain`        primary → worker   the slot is another's, or nobody's: take no more, move what can move over the links,
                                  close the rest with 1012, end
`Stop`         primary → worker   the gateway stops: take no more, close what is open with 1001, end
`Resize`       primary → worker   how many slots there are now
`Deliver`      primary → worker   what another worker, or a command, tells or asks this one
`Answered`     primary → worker   the answer to this worker's own question
`Learnt`       primary → worker   the ids of a `Learn` lead to its slot from now on
`Hold` + fd    both               a listening socket: the worker keeps it open while no primary lives, and gives it to
                                  the next one
`Stream` + fd  primary → worker   where an adopted worker's output goes from now on
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
`Exits`        worker → primary   the last message: with which status the process ends
`Holdings`     worker → primary   to a new primary: connections and minted ids that the worker has
`Orphan`       worker → primary   to a new primary, when it has been told all: who the worker is
=============  =================  ======================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from stickygw.types import GatewayId, HandOverId, SessionId, Slot


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
    """See the module's table and `stickygw.wire.move`. `slot` is theirs: maybe this worker's own, which it has now."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class MoveOut:
    """See the module's table. `slot` is the one that they go to: this worker's own, or one of those in service."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Drain:
    """Another worker has the slot, or nobody: end within `grace_seconds`. A `Stop` may still come after it.

    Connections that can move go over the links of the `MoveOut` before. The others are closed with 1012, one after the
    other: over `spread_seconds` if they are all, else over their share of it (`supervision.spread`).
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
class Hold:
    """A listening socket, that of the `number`-th address of the setting `bind`."""

    number: int


@dataclass(frozen=True, slots=True)
class Stream:
    """What takes the place of the standard output (`number` 1) or error (2): those of the primary before are gone."""

    number: int


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
    """The answer to a `Drain`. So many WebSockets have another worker; so many were closed since that one refused them;
    so many are left, to be closed one after the other."""

    moved: int
    refused: int
    left: int


@dataclass(frozen=True, slots=True)
class Exits:
    """The process is about to end with `status`: for a primary that is not its parent."""

    status: int


MAX_HOLDINGS = 200
"""Connections, or ids, in one `Holdings`: with keys of 640 bytes it stays below a link message's bound."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """`connections` that the worker has, each with its affinity key or None, and `learnt` keys of ids that it has
    minted."""

    connections: list[tuple[HandOverId, bytes | None]] = field(repr=False)
    learnt: list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Orphan:
    """The worker serves, and its primary is gone.

    `workers` is how many slots there were; `target` and `settings` are those of its `Configure`; `is_draining`: it
    lets its connections go.
    """

    slot: Slot
    generation: int
    workers: int
    target: str
    settings: dict[str, Any] = field(repr=False)
    is_draining: bool


ToWorker = Configure | Offer | MoveIn | MoveOut | Drain | Stop | Resize | Deliver | Answered | Learnt | Hold | Stream
ToPrimary = (
    Ready
    | Failed
    | Heartbeat
    | Blocked
    | Taken
    | Declined
    | Ended
    | Came
    | Moved
    | Tell
    | Answer
    | Learn
    | Exits
    | Holdings
    | Orphan
)
Message = ToWorker | ToPrimary
