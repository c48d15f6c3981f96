"""A worker's sign of life: while its event loop turns, a `Heartbeat` goes to the primary every second."""

from __future__ import annotations

import asyncio
import time

from stickygw.apps.native.runtime import Runtime
from stickygw.ipc.lasting_link import LastingLink
from stickygw.observability.counters import Counters
from stickygw.observability.memory import resident_bytes
from stickygw.wire.link import HEARTBEAT_SECONDS, MAX_COUNTED, Heartbeat
from stickygw.worker.intake import Intake
from stickygw.worker.loop_watch import LoopWatch

TICK_SECONDS = 0.1
"""How often the loop's lateness is measured. What it does in between for less than this may go unseen."""


class Pulse:
    """How late the loop was and how much CPU the process took since the last beat; no clock of its own.

    `now` is the loop's time, `cpu` the process's CPU time, both in seconds.
    """

    __slots__ = ("_began_at", "_cpu", "lag")

    def __init__(self, now: float, cpu: float) -> None:
        self.begin(now, cpu)

    def begin(self, now: float, cpu: float) -> None:
        """A beat was sent: what follows belongs to the next one."""
        self._began_at = now
        self._cpu = cpu
        self.lag = 0.0

    def tick(self, due: float, now: float) -> None:
        """A timer that was due at `due` came at `now`."""
        self.lag = max(self.lag, now - due)

    def cpu_share(self, now: float, cpu: float) -> float:
        """CPU time over wall time: 1.0 is all of one CPU, and several threads may take more."""
        return (cpu - self._cpu) / max(now - self._began_at, TICK_SECONDS)


class Heart:
    """Beats from `start` to `stop`. A beat that does not fit the link is left out: the next one says it all anyway."""

    def __init__(self, link: LastingLink, runtime: Runtime, intake: Intake) -> None:
        self._link = link
        self._runtime = runtime
        self._intake = intake
        self._loop = runtime.loop
        self._watch = LoopWatch(link.send_from_thread)
        self._pulse = Pulse(self._loop.time(), time.process_time())
        self._due = self._beat_at = 0.0
        self._told = Counters()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, with the first beat in a second."""
        now = self._loop.time()
        self._pulse.begin(now, time.process_time())
        self._beat_at = now + HEARTBEAT_SECONDS
        self._wait(now)
        self._watch.start()

    def stop(self) -> None:
        """Beat once more, for what was counted last, and then no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._watch.stop()
            self._beat(self._loop.time())

    def _wait(self, now: float) -> None:
        self._due = now + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now, due = self._loop.time(), self._due
        self._wait(now)  # first: whatever goes wrong below, the next one comes
        self._watch.turned()
        self._pulse.tick(due, now)
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_SECONDS
            self._beat(now)

    def _beat(self, now: float) -> None:
        if self._link.is_closed:
            return  # the primary is gone
        cpu, traffic = time.process_time(), self._runtime.traffic()
        beat = Heartbeat(
            lag=self._pulse.lag,
            connections=self._intake.open_connections,
            served=self._intake.served,
            queued=traffic.queued,
            received=traffic.received,
            sent=traffic.sent,
            cpu=self._pulse.cpu_share(now, cpu),
            rss=resident_bytes(),
            report=self._runtime.tells.report,
            counted=self._runtime.counters.since(self._told, at_most=MAX_COUNTED),
        )
        if self._link.send(beat):
            self._pulse.begin(now, cpu)
            for name, label, count in beat.counted:
                self._told.add(name, label, count)
