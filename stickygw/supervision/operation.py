"""One thing that is being done to the fleet, slot by slot. There is at most one at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from stickygw.types import Slot, WorkerId


class Kind(StrEnum):
    """What is being done; the word for it in `stickygw status`."""

    RELOAD = "reloading"
    RESTART = "restarting"
    RECYCLE = "recycling"
    SCALE = "scaling"
    DRAIN = "draining"


@dataclass(slots=True, eq=False)
class Operation:
    """`todo` are the slots that are still to get a new worker; `successor` is the one that is being started now."""

    ticket: int
    kind: Kind
    generation: int | None
    """Of the new workers; None: the slot's own."""
    todo: deque[Slot]
    total: int
    when_done: str
    """What `Finished` says."""
    successor: WorkerId | None = None
    leaving: set[WorkerId] = field(default_factory=set)
    """Workers that must be gone before it is over."""
    added: list[Slot] = field(default_factory=list)
    """Slots that it has made."""
    removing: deque[Slot] = field(default_factory=deque)
    """Slots that are still to be taken away, in that order."""
    giving: WorkerId | None = None
    """The worker that gives its connections to other slots now. One at a time: who takes connections of two workers
    would hear of what these publish sooner than the other one of them, and could not tell what its clients missed."""
    not_before: float = 0.0
    """The clients of the slot before are coming back until then: the next slot waits."""
    failure: str = ""
    moved: int = 0
    """Connections that went over to other workers."""
    closed: int = 0
    """Those that could not, or were refused there."""
    lost: int = 0
    """Those that ended with their worker, which died before it was done. At most so many: others may have some of
    them already, and not have said so."""

    def __str__(self) -> str:
        return f"{self.kind}, {self.total - len(self.todo)} of {self.total} slots" if self.total else str(self.kind)
