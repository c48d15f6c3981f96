"""What each worker's last heartbeat said, how fast its messages come and go, and what all of them have counted."""

from __future__ import annotations

from dataclasses import dataclass

from stickygw.observability.counters import Counters
from stickygw.types import WorkerId
from stickygw.wire.link import Heartbeat


@dataclass(frozen=True, slots=True)
class Vital:
    """A heartbeat, when it came, and messages a second since the one before it."""

    beat: Heartbeat
    at: float
    received_per_second: float
    sent_per_second: float


class Vitals:
    """The last heartbeat of every worker that is not gone. What workers count is added to `counters`, and stays."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._last: dict[WorkerId, Vital] = {}

    def heard(self, worker: WorkerId, beat: Heartbeat, now: float) -> None:
        """A heartbeat came at `now` (monotonic seconds)."""
        last = self._last.get(worker)
        received = sent = 0.0
        if last is not None and now > last.at:
            received = (beat.received - last.beat.received) / (now - last.at)
            sent = (beat.sent - last.beat.sent) / (now - last.at)
        self._last[worker] = Vital(beat, now, received, sent)
        for name, label, count in beat.counted:
            self._counters.add(name, label, count)

    def of(self, worker: WorkerId) -> Vital | None:
        """What the worker's last heartbeat said; None before the first one."""
        return self._last.get(worker)

    def forget(self, worker: WorkerId) -> None:
        """The worker is gone."""
        self._last.pop(worker, None)
