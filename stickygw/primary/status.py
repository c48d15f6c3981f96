"""What `stickygw status` tells of this gateway."""

from __future__ import annotations

import os
from dataclasses import dataclass

from stickygw.observability.counters import Counters
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.intake import Intake
from stickygw.primary.supervisor import Supervisor
from stickygw.supervision.member import Member, SlotRecord
from stickygw.wire.status import SlotStatus, Status, WorkerStatus


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while a gateway runs. `started_at` is monotonic seconds."""

    version: str
    target: str
    addresses: list[str]
    runtime_dir: str
    started_at: float


class StatusReport:
    """Makes the status from its sources."""

    def __init__(
        self, facts: Facts, *, supervisor: Supervisor, hand_overs: HandOvers, intake: Intake, counters: Counters
    ) -> None:
        self._facts = facts
        self._supervisor = supervisor
        self._hand_overs = hand_overs
        self._intake = intake
        self._counters = counters

    @property
    def version(self) -> str:
        """Of the code that the primary runs."""
        return self._facts.version

    def at(self, now: float) -> Status:
        """The status at `now` (monotonic seconds)."""
        fleet, facts = self._supervisor.fleet, self._facts
        return Status(
            version=facts.version,
            pid=os.getpid(),
            uptime=now - facts.started_at,
            target=facts.target,
            addresses=facts.addresses,
            runtime_dir=facts.runtime_dir,
            generation=fleet.generation,
            state=fleet.doing or "running",
            slots=len(fleet.slots),
            connections=self._hand_overs.connections,
            pending=self._intake.pending,
            workers=[self._worker(member, now) for member in fleet.members],
            slots_detail=[_slot(record, now) for record in fleet.slots],
            counters=self._counters.by_name(),
        )

    def _worker(self, member: Member, now: float) -> WorkerStatus:
        vital = self._supervisor.vitals.of(member.id)
        beat = vital.beat if vital is not None else None
        return WorkerStatus(
            slot=member.slot,
            worker=member.id,
            generation=member.generation,
            pid=self._supervisor.pid_of(member.id) or 0,
            state=member.state.value,  # type: ignore[typeddict-item]  # those that are gone are not here
            is_owner=any(record.owner is member for record in self._supervisor.fleet.slots),
            uptime=now - member.started_at,
            connections=self._hand_overs.connections_of(member.id),
            served=beat.served if beat else 0,
            queued=beat.queued if beat else 0,
            received=beat.received if beat else 0,
            sent=beat.sent if beat else 0,
            received_per_second=vital.received_per_second if vital else 0.0,
            sent_per_second=vital.sent_per_second if vital else 0.0,
            cpu=beat.cpu if beat else 0.0,
            lag=beat.lag if beat else 0.0,
            rss=beat.rss if beat else 0,
            silent_for=now - (vital.at if vital else member.started_at),
            blocked=member.blocked_in or None,
            report=beat.report if beat else {},
        )


def _slot(record: SlotRecord, now: float) -> SlotStatus:
    restart_in = None if record.restart_at is None else max(0.0, record.restart_at - now)
    if record.owner is not None:
        state = "ready"
    elif record.coming is not None:
        state = "starting"
    elif record.is_drained:
        state = "drained"
    else:
        state = "backing off" if restart_in is not None else "empty"
    return SlotStatus(
        slot=record.slot,
        state=state,  # type: ignore[typeddict-item]
        restarts=record.restarts,
        last_failure=record.last_failure or None,
        next_start_in=restart_in,
    )
