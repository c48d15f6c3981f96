"""What an application does every so many seconds, in each worker or in one of many: `Schedule`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from stickygw.apps.native.tick import Tick, takes_tick
from stickygw.bridge.claims import Claims, ClaimsUnavailable
from stickygw.observability.counters import Counters

log = logging.getLogger("stickygw.app")

Once = Literal["worker", "machine", "cluster"]

MIN_SECONDS, MAX_SECONDS = 0.01, 31 * 86_400.0

MIN_SHARED_SECONDS = 0.05
"""Of a job that runs once for many: each worker asks the store at each tick, and their clocks have to agree so far."""

MAX_NAME_BYTES = 200

HELD_SECONDS = 15.0
"""For so long nobody else begins a job whose worker has died in it; one that lives renews three times within it."""

REMEMBERED_SECONDS = 10.0
"""How long, beyond two ticks, it is known who had one: workers that come late do not run it again."""

MAX_SLEEP_SECONDS = 60.0
"""After which the clock is looked at again, which may have been set."""

MIN_SLEEP_SECONDS = 0.001
"""uvloop's timers count milliseconds, and may come one early."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Job:
    """`function()`, or `function(tick)`, every `seconds`; `once`: in each worker, in one of each gateway's, or in one
    of all gateways'.

    `given_name` is what it is called among many workers, if not as its function.
    """

    function: Callable[..., Any]
    seconds: float
    once: Once
    given_name: str | None = None
    takes_tick: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.once not in get_args(Once):
            raise ValueError(f"once is one of {', '.join(get_args(Once))}, not {self.once!r}")
        least = MIN_SHARED_SECONDS if self.is_shared else MIN_SECONDS
        if not least <= self.seconds <= MAX_SECONDS:
            raise ValueError(f"every {self.seconds} seconds: {least} to {MAX_SECONDS:g} are possible")
        if self.given_name is not None and not 1 <= len(self.given_name.encode()) <= MAX_NAME_BYTES:
            raise ValueError(f"a job's name has 1 to {MAX_NAME_BYTES} bytes, not {self.given_name!r:.80}")
        if self.is_shared and not self.name:
            raise ValueError(f'{self.function!r} has no name of its own, and once="{self.once}" needs one: give name=')
        object.__setattr__(self, "takes_tick", takes_tick(self.function))

    @property
    def is_shared(self) -> bool:
        """Whether it runs once for many workers."""
        return self.once != "worker"

    @property
    def name(self) -> str:
        """The same in all workers that run this code; "" for a function without a name, such as a `partial`."""
        if self.given_name is not None:
            return self.given_name
        parts = (getattr(self.function, part, None) for part in ("__module__", "__qualname__"))
        module, qualname = (part if isinstance(part, str) else "" for part in parts)
        return f"{module}.{qualname}" if module and qualname else ""

    def check_among(self, others: Iterable[Job]) -> None:
        """Raise `ValueError` if one of `others` would be taken for this one by workers that share jobs."""
        if self.is_shared and any(other.is_shared and other.name == self.name for other in others):
            raise ValueError(
                f'a job with once="machine" or "cluster" is called {self.name} already, and workers know a job by its '
                "name: give name="
            )


class _Deadlines:
    """The deadlines of one job by `clock`, one after the other: tick n is due when `clock()` is n × `seconds`."""

    def __init__(self, seconds: float, clock: Clock, *, last: int = 0) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = last
        self._left_out = 0

    async def wait_next(self) -> int:
        """Wait for the next deadline, and return its number; those that have passed meanwhile are left out."""
        number = await _wait_tick_after(self._last, seconds=self._seconds, clock=self._clock)
        self._left_out += max(0, number - self._last - 1)
        self._last = number
        return number

    def leave_out(self) -> None:
        """Nothing comes of the last one."""
        self._left_out += 1

    def leave_to_others(self) -> None:
        """Another worker has had it."""
        self._left_out = 0

    def begin(self, number: int) -> Tick:
        """It begins now."""
        skipped, self._left_out = self._left_out, 0
        return Tick(number, max(0.0, self._clock() - number * self._seconds), skipped)


class Schedule:
    """Runs `jobs` between `start` and `stop`. Counts ``ticks`` and ``ticks_skipped``: ``busy`` (the last one still
    runs), ``away`` (nobody can say whose turn it is).

    Ticks of a job that runs once for many fall on multiples of its seconds since 1970, by each machine's clock (`now`),
    and who claims one first has it; so the clocks have to agree within the job's seconds. While it runs its worker
    holds the job, so that nobody begins it anew. Others fall on multiples of their seconds since the start, by
    `monotonic`. `gateway` names this one among others. `spawn` runs a coroutine as a task that somebody waits for.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        claims: Claims,
        gateway: str,
        counters: Counters,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        now: Clock = time.time,
        monotonic: Clock = time.monotonic,  # not the loop's: uvloop's counts milliseconds, and stands within a turn
    ) -> None:
        self._jobs = jobs
        self._claims = claims
        self._gateway = gateway
        self._counters = counters
        self._spawn = spawn
        self._now = now
        self._monotonic = monotonic
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; a first tick comes after the job's seconds, or at their next multiple."""
        runs = ((job, self._run_shared(job) if job.is_shared else self._run_own(job)) for job in self._jobs)
        self._tasks = [asyncio.create_task(run, name=f"every: {job.name or job.function!r}") for job, run in runs]

    def stop(self) -> None:
        """No more ticks begin, but for those that are being claimed. Idempotent."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _run_own(self, job: Job) -> None:
        origin = self._monotonic()
        deadlines, running = _Deadlines(job.seconds, lambda: self._monotonic() - origin), None
        while True:
            number = await deadlines.wait_next()
            if running is None or running.done():
                running = self._spawn(self._tick(job, deadlines, number))
            else:
                deadlines.leave_out()
                self._counters.add("ticks_skipped", "busy")

    async def _run_shared(self, job: Job) -> None:
        deadlines = _Deadlines(job.seconds, self._now, last=int(self._now() / job.seconds))
        while True:
            number = await deadlines.wait_next()
            # A task of its own: what it has claimed when we are stopped, nobody else would run.
            await asyncio.wait([self._spawn(self._contend(job, deadlines, number))])

    async def _contend(self, job: Job, deadlines: _Deadlines, number: int) -> None:
        """Begin the job if this tick is ours, and nobody still runs it."""
        key = job.name if job.once == "cluster" else f"{self._gateway}:{job.name}"
        lease, holder = f"{key}:running", secrets.token_hex(8)
        try:
            if not await self._claims.claim(f"{key}:{number}", seconds=2 * job.seconds + REMEMBERED_SECONDS):
                deadlines.leave_to_others()
                return
            is_ours = await self._claims.hold(lease, holder, seconds=HELD_SECONDS)
        except ClaimsUnavailable as error:
            deadlines.leave_out()
            self._counters.add("ticks_skipped", "away")
            log.debug("%s is not run: %s", job.name, error)
            return
        if is_ours:
            self._spawn(self._tick_held(job, deadlines, number, lease, holder))
        else:
            deadlines.leave_out()
            self._counters.add("ticks_skipped", "busy")

    async def _tick_held(self, job: Job, deadlines: _Deadlines, number: int, lease: str, holder: str) -> None:
        running = self._spawn(self._tick(job, deadlines, number))
        while not (await asyncio.wait([running], timeout=HELD_SECONDS / 3))[0]:
            await _unless_away(self._claims.hold(lease, holder, seconds=HELD_SECONDS))
        await _unless_away(self._claims.release(lease, holder))

    async def _tick(self, job: Job, deadlines: _Deadlines, number: int) -> None:
        self._counters.add("ticks")
        tick = deadlines.begin(number)
        try:
            result = job.function(tick) if job.takes_tick else job.function()
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("%s raised; its next tick comes", job.name or job.function)


async def _wait_tick_after(last: int, *, seconds: float, clock: Clock) -> int:
    """Wait until a tick after number `last`, and return its number; tick n comes when `clock()` is n × `seconds`.

    What a blocked loop or a clock set forward has left out does not come. A clock set back by less than a tick is
    waited for, so that no tick comes twice; set back further, it counts on from what it says.
    """
    tick = last + 1
    while (wait := tick * seconds - clock()) > 0:
        if wait > 2 * seconds:
            tick = int(clock() / seconds) + 1
        else:
            await asyncio.sleep(max(MIN_SLEEP_SECONDS, min(wait, MAX_SLEEP_SECONDS)))
    return max(tick, int(clock() / seconds))


async def _unless_away(claims: Coroutine[Any, Any, object]) -> None:
    try:
        await claims
    except ClaimsUnavailable as error:
        log.debug("a job that runs is not held: %s", error)  # until the store is back, or nobody's in `HELD_SECONDS`
