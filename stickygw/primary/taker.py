"""One worker as its hand-overs see it: what it was offered, what it has, and how it is."""

from __future__ import annotations

from stickygw.ipc.link import Link
from stickygw.primary.offered import HandOver
from stickygw.routing.load import Load
from stickygw.types import HandOverId, Slot, WorkerId
from stickygw.wire.link import HEARTBEAT_SECONDS


class Taker:
    """A worker that is or was the one that takes a slot's connections. Times are the loop's."""

    __slots__ = (
        "heard_at",
        "in_flight",
        "is_moving",
        "link",
        "load",
        "moved",
        "overdue",
        "ready_at",
        "slot",
        "taken",
        "worker",
    )

    def __init__(self, worker: WorkerId, slot: Slot, link: Link, *, now: float) -> None:
        self.worker = worker
        self.slot = slot
        self.link = link
        self.ready_at = self.heard_at = now
        self.load = Load()
        self.in_flight: dict[HandOverId, HandOver] = {}
        """Offered, and neither taken nor declined. The kernel bounds them: a link holds some 278 descriptors that are
        unread (measured), and a worker acknowledges what it has read before it waits again. An answer ends the wait,
        or the worker's death, which comes to a worker that gives none.
        """
        self.overdue: set[HandOverId] = set()
        """Those in flight that wait too long for an answer: while there are any, the worker stalls."""
        self.taken: dict[HandOverId, bytes | None] = {}
        """What it has, each with its key."""
        self.is_moving = False
        """Whether it was told to give what it has to other workers."""
        self.moved = 0
        """How many of its connections others have."""

    @property
    def connections(self) -> int:
        """Those that it has, and those on their way to it."""
        return len(self.in_flight) + len(self.taken)

    def lag(self, now: float) -> float:
        """Seconds that its event loop is late: as it said, or as late as its next heartbeat is."""
        return max(self.load.lag, now - self.heard_at - HEARTBEAT_SECONDS)

    def offer(self, hand_over: HandOver) -> bool:
        """Offer it a connection; False: it stalls, or its link is full."""
        if self.overdue or self.link.is_queued_for or not self.link.send(hand_over.offer(), hand_over.sock.fileno()):
            return False
        self.in_flight[hand_over.id] = hand_over
        hand_over.taker = self
        return True
