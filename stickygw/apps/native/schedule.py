"""What an application does every so many seconds, in each worker or in one of many: `Schedule`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stickygw.bridge.claims import Claims, ClaimsUnavailable
from stickygw.observability.counters import Counters

log = logging.getLogger("stickygw.app")

Once = Literal["worker", "machine", "cluster"]

MIN_SECONDS, MAX_SECONDS = 0.05, 31 * 86_400.0


@dataclass(frozen=True, slots=True)
class Job:
    """`function()` every `seconds`; `once`: in each worker, in one of each gateway's, or in one of all gateways'."""

    function: Callable[[], Any]
    seconds: float
    once: Once

    def __post_init__(self) -> None:
        if self.once not in get_args(Once):
            raise ValueError(f"once is one of {', '.join(get_args(Once))}, not {self.once!r}")
        if not MIN_SECONDS <= self.seconds <= MAX_SECONDS:
            raise ValueError(f"every {self.seconds} seconds: {MIN_SECONDS} to {MAX_SECONDS:g} are possible")

    @property
    def name(self) -> str:
        """The same in all workers that run this code."""
        return f"{self.function.__module__}.{self.function.__qualname__}"


class Schedule:
    """Runs `jobs` between `start` and `stop`. Counts ``ticks`` and ``ticks_skipped``: ``busy`` (the last one still
    runs), ``away`` (nobody can say whose turn it is).

    Ticks of a job that runs once for many fall on multiples of its seconds since 1970, by each machine's clock, and who
    claims one first has it; so the clocks have to agree within the job's seconds. `gateway` names this one among
    others. `spawn` runs a tick as a task that somebody waits for.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        claims: Claims,
        gateway: str,
        counters: Counters,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._claims = claims
        self._gateway = gateway
        self._counters = counters
        self._spawn = spawn
        self._now = now
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; a first tick comes after the job's seconds, or at their next multiple."""
        self._tasks = [asyncio.create_task(self._run(job), name=f"every: {job.name}") for job in self._jobs]

    def stop(self) -> None:
        """No more ticks begin. Idempotent."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _run(self, job: Job) -> None:
        began, tick, running = self._now(), 0, None
        while True:
            if job.once == "worker":
                tick += 1
                await asyncio.sleep(max(0.0, began + tick * job.seconds - self._now()))
            else:
                tick = int(self._now() / job.seconds) + 1
                await asyncio.sleep(tick * job.seconds - self._now())
            if running is not None and not running.done():
                self._counters.add("ticks_skipped", "busy")
            elif job.once == "worker" or await self._is_ours(job, tick):
                running = self._spawn(self._tick(job))

    async def _is_ours(self, job: Job, tick: int) -> bool:
        among = "" if job.once == "cluster" else f"{self._gateway}:"
        try:
            return await self._claims.claim(f"{among}{job.name}:{tick}", seconds=2 * job.seconds)
        except ClaimsUnavailable as error:
            self._counters.add("ticks_skipped", "away")
            log.debug("%s is not run: %s", job.name, error)
            return False

    async def _tick(self, job: Job) -> None:
        self._counters.add("ticks")
        try:
            result = job.function()
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("%s raised; its next tick comes", job.name)
