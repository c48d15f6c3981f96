"""The links over which a worker gives its connections to others, and what becomes of these: `Moves`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from stickygw.ipc.link import link_pair
from stickygw.observability.counters import Counters
from stickygw.primary.takers import Takers
from stickygw.primary.worker_process import WorkerProcess
from stickygw.supervision.events import WorkerMoved
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import MoveIn, MoveOut

log = logging.getLogger("stickygw.supervisor")


class Moves:
    """Those that are under way. Those that moved, and those that are lost, are counted by who knows: `takers`."""

    def __init__(self, takers: Takers, counters: Counters) -> None:
        self._takers = takers
        self._counters = counters
        self._giving: set[WorkerId] = set()
        """Those that have not said what became of their connections."""

    def begin(self, giver: WorkerProcess, successors: Iterable[tuple[Slot, WorkerProcess | None]]) -> None:
        """Link `giver` to each of its successors, whose connections are to be those that belong to that slot.

        Who has no link to where it belongs, for want of descriptors, is closed, and comes again.
        """
        linked = [self._link(giver, slot, successor) for slot, successor in successors if successor is not None]
        if any(linked):
            self._takers.begin_to_move(giver.worker)
            self._giving.add(giver.worker)

    def said(self, worker: WorkerId, moved: int, refused: int, left: int) -> WorkerMoved:
        """The worker says that its move is over. What the fleet is to know."""
        self._giving.discard(worker)
        for label, number in (("refused", refused), ("drained", left)):
            if number:
                self._counters.add("moves", label, number)
        return WorkerMoved(worker, moved, refused, left)

    def cut_off(self, worker: WorkerId) -> WorkerMoved | None:
        """The worker is gone. What the fleet is to know, if it cannot say any more what became of its connections."""
        if worker not in self._giving:
            return None
        self._giving.discard(worker)
        moved, lost = self._takers.moved_from(worker)
        return WorkerMoved(worker, moved, 0, 0, lost)

    def _link(self, giver: WorkerProcess, slot: Slot, successor: WorkerProcess) -> bool:
        try:
            ours, theirs = link_pair()
            with ours, theirs:
                # In this order: a worker that is told to move finds somebody who listens.
                return successor.send(MoveIn(giver.slot), theirs.fileno()) and giver.send(MoveOut(slot), ours.fileno())
        except OSError as error:
            log.warning("slot=%d: nothing moves to slot %d: %s", giver.slot, slot, error)
            return False
