"""What commands tell of a running gateway: the results of the control socket's requests, and so the ``--json`` output.

Seconds, bytes and fractions of one CPU (1.0 is all of it), never formatted.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict


class WorkerStatus(TypedDict):
    """One worker process. A slot may have two: one that owns it, and one that drains or is just starting."""

    slot: int
    worker: int
    """Its `WorkerId`."""
    generation: int
    pid: int
    state: Literal["starting", "ready", "draining", "stopping", "ending"]
    is_owner: bool
    """Whether the slot's clients come to it."""
    uptime: float
    connections: int
    served: int
    """Connections that it has taken so far."""
    queued: int
    """Messages that wait for a handler or a slow client."""
    received: int
    sent: int
    received_per_second: float
    sent_per_second: float
    cpu: float
    lag: float
    """The longest that its event loop was late, in the last second."""
    rss: int
    silent_for: float
    """Seconds since its last heartbeat."""
    blocked: str | None
    """Where its event loop stands still, if it does."""
    report: dict[str, Any]
    """What the application said of itself with `App.report`."""


class SlotStatus(TypedDict):
    """One slot, whether it has a worker or not."""

    slot: int
    state: Literal["ready", "starting", "backing off", "drained", "empty"]
    restarts: int
    last_failure: str | None
    next_start_in: float | None
    """Seconds until its worker is started again, while it is backing off."""


class Status(TypedDict):
    """The result of ``status``."""

    version: str
    pid: int
    uptime: float
    target: str
    addresses: list[str]
    runtime_dir: str
    generation: int
    state: str
    """running, or what the gateway is doing: reloading, scaling, …"""
    slots: int
    connections: int
    pending: int
    """Connections whose head is not complete yet."""
    workers: list[WorkerStatus]
    slots_detail: list[SlotStatus]
    counters: dict[str, int]
    """``name`` or ``name{label}`` → how often."""


class SessionStorePlace(TypedDict):
    """The result of ``sessions.store``: where the sessions are. The URL may have a password; no command shows it."""

    url: str
    prefix: str
    lifetime: int
    """Seconds that the id of an ended session is remembered."""


class RoomStorePlace(TypedDict):
    """The result of ``rooms.store``: what it takes to publish. No command shows the URL or the secret."""

    url: str
    prefix: str
    secret: str | None
    """What signs envelopes; None: they are not signed."""


class SessionsInUse(TypedDict):
    """The result of ``sessions.in_use``, by slot: the answer to `stickygw.wire.tell.SESSIONS_IN_USE`, or why there is
    none."""

    answers: dict[int, Any]
    silent: dict[int, str]


class Why(TypedDict):
    """The result of ``why``: where a client would go, and the steps that led there."""

    slot: int | None
    reason: str
    steps: list[str]


class Told(TypedDict):
    """The result of ``tell``: how many workers got it."""

    told: int


class Answers(TypedDict):
    """The result of ``ask``: by slot, ``{"payload": …}`` or ``{"error": text}``."""

    answers: dict[int, dict[str, Any]]
