"""What the fleet knows of one worker, and of one slot."""

from __future__ import annotations

from dataclasses import dataclass, field

from stickygw.supervision.backoff import RestartBackoff
from stickygw.supervision.lifecycle import State
from stickygw.types import Slot, WorkerId


@dataclass(slots=True, eq=False)
class Member:
    """One worker process. Times are monotonic seconds; `deadline` is the end of the wait that its state implies."""

    id: WorkerId
    slot: Slot
    generation: int
    state: State
    started_at: float
    deadline: float | None
    ready_at: float | None = None
    heard_at: float = 0.0
    connections: int = 0
    served: int = 0
    rss: int = 0
    blocked_in: str = ""
    """Where its event loop stands still, if it says so."""
    failure: str = ""
    """Why it ends, as far as it or we have said."""
    is_retired: bool = False
    """Whether it was told to give up its slot, or never to take it."""
    is_adopted: bool = False
    """Whether it ran before we did."""
    is_killed: bool = False
    """Whether we have ended it by force."""
    spread_seconds: float = 0.0
    """Over how long all its clients are sent away, from when it was asked to drain."""
    expires_at: float | None = None
    """When it is old enough to be replaced; likewise `expires_served` connections and `expires_rss` bytes."""
    expires_served: int | None = None
    expires_rss: int | None = None

    @property
    def is_heard(self) -> bool:
        """Whether heartbeats are expected of it."""
        return self.state in (State.READY, State.DRAINING)

    def expiry(self, now: float) -> str:
        """Why it is to be replaced by a fresh one; "": it is not."""
        if self.expires_at is not None and now >= self.expires_at:
            return "it is old (max_age)"
        if self.expires_served is not None and self.served >= self.expires_served:
            return f"it has served {self.served} connections (max_served)"
        if self.expires_rss is not None and self.rss >= self.expires_rss:
            return f"it has {self.rss >> 20} MiB of memory (max_rss)"
        return ""


@dataclass(slots=True, eq=False)
class SlotRecord:
    """One slot. At most two of `members` live at any time, adopted ones apart, and at most one is the `owner`."""

    slot: Slot
    generation: int
    """Of the code that its next worker runs."""
    members: list[Member] = field(default_factory=list)
    owner: Member | None = None
    is_wanted: bool = True
    """Whether the gateway is to have this slot: not after a scale-down."""
    is_open: bool = True
    """Whether clients can belong to it: not before its first worker is ready."""
    is_drained: bool = False
    restart_at: float | None = None
    """When its next worker is started, if it waits for that."""
    restarts: int = 0
    last_failure: str = ""
    backoff: RestartBackoff = field(default_factory=RestartBackoff)

    @property
    def coming(self) -> Member | None:
        """The worker that is to own the slot next."""
        return next((member for member in self.members if member.state is State.STARTING), None)

    @property
    def has_room(self) -> bool:
        """Whether another worker may be started in it."""
        return len(self.members) < 2 and self.coming is None

    @property
    def is_empty(self) -> bool:
        """Whether it has no worker for its clients, and is meant to."""
        return self.is_wanted and not self.is_drained and self.owner is None

    @property
    def wants_worker(self) -> bool:
        """Whether it is empty, and another worker may be started in it."""
        return self.is_empty and self.has_room
