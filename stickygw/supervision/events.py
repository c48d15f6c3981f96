"""What the fleet is told, what operators ask of it, and what it wants done: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from stickygw.supervision.lifecycle import Order
from stickygw.types import Slot, WorkerId

# --- what operators ask -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reload:
    """Replace the worker of every slot by one with new code, one slot after the other."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Have `slots` slots, at least one."""

    slots: int


@dataclass(frozen=True, slots=True)
class ScaleBy:
    """Have `step` slots more than when it is begun, or fewer."""

    step: int


@dataclass(frozen=True, slots=True)
class DrainSlot:
    """Let a slot's worker close its connections and end, and start no other there until `RestartSlot`."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class RestartSlot:
    """Replace one slot's worker, or start one where there is none."""

    slot: Slot


Command = Reload | Scale | ScaleBy | DrainSlot | RestartSlot


# --- what the fleet is told -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A worker whose primary was killed, and that has said who it is. Before `Begun`, or any time after it."""

    worker: WorkerId
    slot: Slot
    generation: int
    is_draining: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """The gateway starts: every slot wants a worker, but for those that are `drained`."""

    drained: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """An operator wants `command` carried out; `Progress` and one `Finished` with the same `ticket` (not 0) follow."""

    ticket: int
    command: Command


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The gateway stops: all workers end within `grace_seconds`; their clients come back over `spread_seconds`."""

    grace_seconds: float
    spread_seconds: float


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker says that its application has started."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker says why its application cannot start."""

    worker: WorkerId
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerHeard:
    """A heartbeat: open connections, those served so far, resident bytes."""

    worker: WorkerId
    connections: int
    served: int
    rss: int


@dataclass(frozen=True, slots=True)
class WorkerCounted:
    """How many connections the worker has by the primary's own count, which is newer than any heartbeat's."""

    worker: WorkerId
    connections: int


@dataclass(frozen=True, slots=True)
class WorkerBlocked:
    """A worker's own watch says that its event loop stands still, and where."""

    worker: WorkerId
    where: str


@dataclass(frozen=True, slots=True)
class WorkerCutOff:
    """The worker's link is closed: it can take nothing any more."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """The worker's process is reaped and its link read to the end. `status` is its end in words.

    `is_clean`: it exited with status 0. `is_forced`: it says that it cut what was left.
    """

    worker: WorkerId
    status: str
    is_clean: bool
    is_forced: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The primary itself stood still for `seconds`: nobody else can be blamed for that time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `Fleet.next_deadline` is here."""


@dataclass(frozen=True, slots=True)
class WorkerMoved:
    """A worker that drains has given away what it could: so many WebSockets `moved`, so many were `refused` by another
    worker and are closed, so many are `left` to be closed. Or it died before that: `lost` at most."""

    worker: WorkerId
    moved: int
    refused: int
    left: int
    lost: int = 0


WorkerEvent = (
    WorkerReady | WorkerFailed | WorkerHeard | WorkerCounted | WorkerBlocked | WorkerMoved | WorkerCutOff | WorkerGone
)
Event = Found | Begun | Asked | StopAsked | WorkerEvent | Resumed | Tick


# --- what the fleet wants done ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a process for the slot. If none can be had, say `WorkerFailed` and `WorkerGone`."""

    worker: WorkerId
    slot: Slot
    generation: int


@dataclass(frozen=True, slots=True)
class GiveSlot:
    """The worker owns its slot from now on: new connections go to it."""

    worker: WorkerId
    slot: Slot


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out `order`. The seconds are for DRAIN and STOP.

    `successors` are for DRAIN: who takes the connections that can move, the slot's next owner, or the owners of all
    slots in service. The order comes before any action that sends them clients who belong with those that move.
    """

    worker: WorkerId
    order: Order
    grace_seconds: float
    spread_seconds: float
    successors: tuple[tuple[Slot, WorkerId], ...] = ()


@dataclass(frozen=True, slots=True)
class OpenSlot:
    """The slot exists from now on."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class CloseSlot:
    """The slot does not exist any more: its clients belong elsewhere from now on."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class SetDrained:
    """Whether the slot exists, but gets nobody."""

    slot: Slot
    is_drained: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of the command with `ticket` (0: of a replacement that nobody asked for) is done."""

    ticket: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The command with `ticket` is over. `text` says what was done, or why it failed."""

    ticket: int
    text: str
    is_well: bool
    is_target_broken: bool = False
    """It failed since the application cannot start."""


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class FirstReady:
    """The first worker is ready: connections can be accepted."""


@dataclass(frozen=True, slots=True)
class AllReady:
    """Every slot of the start has had a ready worker, or is not to have one any more."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A worker ended before any was ever ready: the application cannot start."""

    reason: str


@dataclass(frozen=True, slots=True)
class AllGone:
    """No worker is left after `StopAsked`."""


Action = (
    Launch
    | GiveSlot
    | Do
    | OpenSlot
    | CloseSlot
    | SetDrained
    | Progress
    | Finished
    | Note
    | FirstReady
    | AllReady
    | GiveUp
    | AllGone
)
