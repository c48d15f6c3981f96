"""The life of one worker process, as a table: in which state it is, what happens to it, and what is done about it."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    """It exists; its application has not started."""
    READY = "ready"
    """Its application has started: it takes connections."""
    DRAINING = "draining"
    """Another has its slot, or nobody: that one, or the owners of all other slots, get what can move. It closes the
    rest (1012), one after the other."""
    STOPPING = "stopping"
    """The gateway stops: it closes its connections (1001)."""
    ENDING = "ending"
    """It has nothing to do any more; its process is about to end, or to be ended."""
    GONE = "gone"
    """Its process is reaped."""


class Sign(StrEnum):
    """What happens to a worker."""

    IS_READY = "says that it is ready"
    CANNOT_START = "says that it cannot start"
    IS_RETIRED = "is to give up its slot"
    IS_STOPPED = "the gateway stops"
    IS_SILENT = "no heartbeat in time"
    IS_OVERDUE = "its time is over"
    IS_CUT_OFF = "its link is closed"
    IS_GONE = "its process is reaped"


class Order(StrEnum):
    """What is done to a worker's process."""

    DRAIN = "asked to drain"
    STOP = "asked to stop"
    TERMINATE = "SIGTERM"
    ABORT = "SIGABRT"
    """It writes the traceback of every thread to the log, and ends."""
    KILL = "SIGKILL"


TRANSITIONS: dict[tuple[State, Sign], tuple[State, Order | None]] = {
    (State.STARTING, Sign.IS_READY): (State.READY, None),
    (State.STARTING, Sign.CANNOT_START): (State.ENDING, None),
    (State.STARTING, Sign.IS_OVERDUE): (State.ENDING, Order.ABORT),
    (State.STARTING, Sign.IS_RETIRED): (State.ENDING, Order.TERMINATE),
    (State.STARTING, Sign.IS_STOPPED): (State.ENDING, Order.TERMINATE),
    (State.STARTING, Sign.IS_CUT_OFF): (State.ENDING, None),
    (State.STARTING, Sign.IS_GONE): (State.GONE, None),
    (State.READY, Sign.IS_RETIRED): (State.DRAINING, Order.DRAIN),
    (State.READY, Sign.IS_STOPPED): (State.STOPPING, Order.STOP),
    (State.READY, Sign.IS_SILENT): (State.ENDING, Order.ABORT),
    (State.READY, Sign.IS_CUT_OFF): (State.ENDING, None),
    (State.READY, Sign.IS_GONE): (State.GONE, None),
    (State.DRAINING, Sign.IS_STOPPED): (State.STOPPING, Order.STOP),
    (State.DRAINING, Sign.IS_SILENT): (State.ENDING, Order.ABORT),
    (State.DRAINING, Sign.IS_OVERDUE): (State.ENDING, Order.KILL),
    (State.DRAINING, Sign.IS_CUT_OFF): (State.ENDING, None),
    (State.DRAINING, Sign.IS_GONE): (State.GONE, None),
    (State.STOPPING, Sign.IS_OVERDUE): (State.ENDING, Order.KILL),
    (State.STOPPING, Sign.IS_CUT_OFF): (State.ENDING, None),
    (State.STOPPING, Sign.IS_GONE): (State.GONE, None),
    (State.ENDING, Sign.IS_STOPPED): (State.ENDING, None),
    (State.ENDING, Sign.IS_OVERDUE): (State.ENDING, Order.KILL),
    (State.ENDING, Sign.IS_GONE): (State.GONE, None),
}
"""What is not in the table changes nothing: a worker that is ending may still say that it is ready."""
