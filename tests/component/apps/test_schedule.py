"""`Schedule`: ticks in each worker, or in one of many."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw import App
from stickygw.apps.native import schedule as schedule_module
from stickygw.apps.native.schedule import Job, Schedule
from stickygw.bridge.claims import Claims, ClaimsUnavailable, MemoryClaims, RedisClaims
from stickygw.observability.counters import Counters


class Away(MemoryClaims):
    """A store that is away."""

    async def claim(self, name: str, *, seconds: float) -> bool:
        raise ClaimsUnavailable("away")


class Noted(MemoryClaims):
    """One store for several schedules, that forgets nothing and notes who asked for what."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    @property
    def ticks(self) -> list[int]:
        """The numbers that were asked for."""
        return [int(name.rpartition(":")[2]) for name in self.asked]

    async def claim(self, name: str, *, seconds: float) -> bool:
        self.asked.append(name)
        return self.asked.count(name) == 1


class SetClock:
    """The time of day on a machine whose clock somebody sets, and which goes at another `rate` than the loop's."""

    def __init__(self, rate: float = 1.0) -> None:
        self.offset, self._rate, self._began = 0.0, rate, time.monotonic()

    def __call__(self) -> float:
        return 1_000_000.0 + self.offset + self._rate * (time.monotonic() - self._began)


def schedule(
    *jobs: Job,
    claims: Claims | None = None,
    gateway: str = "0000aaaa",
    counters: Counters | None = None,
    now: Callable[[], float] = time.time,
) -> Schedule:
    def spawn(tick: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(tick)

    return Schedule(
        jobs, claims=claims or MemoryClaims(), gateway=gateway, counters=counters or Counters(), spawn=spawn, now=now
    )


@pytest.mark.parametrize("once", ["worker", "machine", "cluster"])
async def test_a_job_runs_again_and_again_also_after_an_error(once: Any, caplog: pytest.LogCaptureFixture) -> None:
    ticks: list[int] = []

    async def tick() -> None:
        ticks.append(len(ticks))
        if len(ticks) == 1:
            raise LookupError("the first one")

    running = schedule(Job(tick, 0.05, once))
    running.start()
    await wait_until(lambda: len(ticks) >= 3)
    running.stop()
    assert [record.levelno for record in caplog.records if "raised" in record.message] == [logging.ERROR]


async def test_a_tick_that_still_runs_is_not_joined_by_another() -> None:
    counters, may_end, begun = Counters(), asyncio.Event(), []

    async def slow() -> None:
        begun.append(1)
        await may_end.wait()

    running = schedule(Job(slow, 0.05, "worker"), counters=counters)
    running.start()
    await wait_until(lambda: counters.value("ticks_skipped", "busy") >= 2)
    assert len(begun) == 1
    may_end.set()
    await wait_until(lambda: len(begun) >= 2)
    running.stop()


@pytest.mark.parametrize(("once", "gateways"), [("machine", ["a", "a", "a", "b"]), ("cluster", ["a", "a", "b", "c"])])
async def test_of_many_workers_one_has_each_tick(
    valkey: ValkeyServer, prefix: str, once: Any, gateways: list[str]
) -> None:
    had: list[tuple[str, str]] = []
    claimed: list[str] = []

    class NotedInRedis(RedisClaims):
        async def claim(self, name: str, *, seconds: float) -> bool:
            is_ours = await super().claim(name, seconds=30)  # so long that no tick of this test is forgotten
            if is_ours:
                claimed.append(name)
            return is_ours

    claims = NotedInRedis(valkey.url, prefix=prefix)

    def job(gateway: str) -> Callable[[], None]:
        def tick() -> None:
            had.append((gateway, "tick"))

        return tick

    running = [schedule(Job(job(gateway), 0.1, once), claims=claims, gateway=gateway) for gateway in gateways]
    for each in running:
        each.start()
    await wait_until(lambda: len(had) >= 6)
    for each in running:
        each.stop()
    await asyncio.sleep(0)
    assert len(claimed) == len(set(claimed))
    assert abs(len(had) - len(claimed)) <= len(gateways)  # a tick that was claimed last may not have begun
    await claims.close()


async def test_while_nobody_can_say_whose_turn_it_is_it_is_nobody_s() -> None:
    counters, ticks = Counters(), []
    running = schedule(Job(lambda: ticks.append(1), 0.05, "cluster"), claims=Away(), counters=counters)
    running.start()
    await wait_until(lambda: counters.value("ticks_skipped", "away") >= 2)
    running.stop()
    assert ticks == []


async def test_a_claim_is_the_first_one_s_until_it_is_forgotten(valkey: ValkeyServer, prefix: str) -> None:
    one, two = RedisClaims(valkey.url, prefix=prefix), RedisClaims(valkey.url, prefix=prefix)
    name = secrets.token_hex(4)
    assert [await one.claim(name, seconds=0.2), await two.claim(name, seconds=0.2)] == [True, False]
    await wait_until(lambda: two.claim(name, seconds=30))
    await one.close()
    await two.close()


async def test_a_claim_at_a_store_that_is_away_is_an_error(own_valkey: ValkeyServer, prefix: str) -> None:
    claims = RedisClaims(own_valkey.url, prefix=prefix)
    own_valkey.stop()
    with pytest.raises(ClaimsUnavailable):
        await claims.claim("a", seconds=1)
    await claims.close()


@pytest.mark.parametrize(
    ("seconds", "once"), [(0.009, "worker"), (0, "worker"), (3e6, "worker"), (0.049, "cluster"), (1, "galaxy")]
)
def test_what_cannot_be_done_is_refused_where_it_is_asked_for(seconds: float, once: Any) -> None:
    with pytest.raises(ValueError, match=r"once is one of|are possible"):
        App().every(seconds=seconds, once=once)(lambda: None)


# Clocks


async def test_in_each_worker_the_time_of_day_counts_for_nothing() -> None:
    clock, ticks = SetClock(), []
    running = schedule(Job(lambda: ticks.append(1), 0.05, "worker"), now=clock)
    running.start()
    await wait_until(lambda: len(ticks) >= 2)
    for offset in (3600.0, -7200.0):
        clock.offset, before, began = offset, len(ticks), time.monotonic()
        await wait_until(lambda before=before: len(ticks) >= before + 4)  # type: ignore[misc]
        assert len(ticks) - before <= (time.monotonic() - began) / 0.05 + 1
    running.stop()


async def test_a_clock_that_is_set_forward_leaves_ticks_out() -> None:
    clock, claims = SetClock(), Noted()
    running = schedule(Job(lambda: None, 0.05, "cluster"), claims=claims, now=clock)
    running.start()
    await wait_until(lambda: len(claims.asked) >= 2)
    clock.offset, before, began = 3600.0, len(claims.asked), time.monotonic()
    await wait_until(lambda: len(claims.asked) >= before + 4)
    assert len(claims.asked) - before <= (time.monotonic() - began) / 0.05 + 2
    running.stop()


async def test_a_clock_that_is_set_far_back_is_believed() -> None:
    clock, claims = SetClock(), Noted()
    running = schedule(Job(lambda: None, 0.05, "cluster"), claims=claims, now=clock)
    running.start()
    await wait_until(lambda: len(claims.asked) >= 2)
    clock.offset, last = -3600.0, claims.ticks[-1]
    await wait_until(lambda: claims.ticks[-1] < last and len(set(claims.ticks)) >= 5)
    running.stop()


async def test_a_clock_that_is_set_back_a_little_brings_no_tick_twice() -> None:
    clock, claims = SetClock(), Noted()
    running = schedule(Job(lambda: None, 0.1, "cluster"), claims=claims, now=clock)
    running.start()
    await wait_until(lambda: len(claims.asked) >= 2)
    clock.offset -= 0.05
    await wait_until(lambda: len(claims.asked) >= 5)
    running.stop()
    assert claims.ticks == sorted(set(claims.ticks))


async def test_a_timer_that_comes_early_brings_no_tick_twice() -> None:
    claims = Noted()
    running = schedule(Job(lambda: None, 0.05, "machine"), claims=claims, now=SetClock(rate=0.9))
    running.start()
    await wait_until(lambda: len(claims.asked) >= 8)
    running.stop()
    assert claims.ticks == sorted(set(claims.ticks))


def test_with_uvloop_s_timers_each_tick_comes_once() -> None:
    claims = Noted()

    async def run() -> None:
        running = schedule(Job(lambda: None, 0.0503, "machine"), claims=claims)
        running.start()
        await wait_until(lambda: len(set(claims.asked)) >= 30)
        running.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert claims.ticks == sorted(set(claims.ticks))


@pytest.mark.parametrize("once", ["worker", "cluster"])
async def test_what_a_blocked_loop_has_left_out_does_not_come(once: Any) -> None:
    ticks: list[float] = []
    running = schedule(Job(lambda: ticks.append(time.monotonic()), 0.05, once), claims=Noted())
    running.start()
    await wait_until(lambda: len(ticks) >= 2)
    time.sleep(0.5)  # noqa: ASYNC251 - what blocks the loop
    before, unblocked = len(ticks), time.monotonic()
    await wait_until(lambda: len(ticks) >= before + 5)
    running.stop()
    assert ticks[before + 4] - unblocked > 0.1  # two may come at once: the late one, and the next


# Beside the last one


async def test_a_job_that_still_runs_in_one_worker_begins_in_no_other() -> None:
    claims, counters, at_once = Noted(), Counters(), []
    may_end = asyncio.Event()

    async def slow() -> None:
        at_once.append(1)
        await may_end.wait()

    running = [schedule(Job(slow, 0.05, "cluster"), claims=claims, counters=counters) for _ in range(3)]
    for each in running:
        each.start()
    await wait_until(lambda: counters.value("ticks_skipped", "busy") >= 4)
    assert len(at_once) == 1
    assert counters.value("ticks_skipped", "busy") <= len(set(claims.asked)) - 1  # counted by one of them
    may_end.set()
    await wait_until(lambda: len(at_once) >= 3)
    for each in running:
        each.stop()


async def test_a_job_is_held_as_long_as_it_runs(
    valkey: ValkeyServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_module, "HELD_SECONDS", 1.5)
    claims, counters, begun, may_end = RedisClaims(valkey.url, prefix=prefix), Counters(), [], asyncio.Event()

    async def slow() -> None:
        begun.append(time.monotonic())
        await may_end.wait()

    running = [schedule(Job(slow, 0.1, "cluster"), claims=claims, counters=counters) for _ in range(2)]
    for each in running:
        each.start()
    await wait_until(lambda: begun and time.monotonic() > begun[0] + 3.1)
    assert len(begun) == 1
    assert counters.value("ticks_skipped", "busy") > 0
    for each in running:
        each.stop()
    may_end.set()
    await wait_until(lambda: claims.hold(f"{__name__}.{slow.__qualname__}:running", "the next", seconds=1))
    await claims.close()


async def test_what_a_dead_worker_held_is_another_s_after_a_while(valkey: ValkeyServer, prefix: str) -> None:
    claims, counters, begun = RedisClaims(valkey.url, prefix=prefix), Counters(), []
    assert await claims.hold("mail:running", "dead", seconds=0.4)
    running = schedule(Job(lambda: begun.append(1), 0.1, "cluster", "mail"), claims=claims, counters=counters)
    running.start()
    await wait_until(lambda: begun)
    assert counters.value("ticks_skipped", "busy") >= 1
    running.stop()
    await claims.close()


async def test_a_tick_that_was_being_claimed_is_run_though_it_is_stopped() -> None:
    asked, may_answer, ticks = asyncio.Event(), asyncio.Event(), []

    class Slow(MemoryClaims):
        async def claim(self, name: str, *, seconds: float) -> bool:
            asked.set()
            await may_answer.wait()
            return True

    running = schedule(Job(lambda: ticks.append(1), 0.05, "cluster"), claims=Slow())
    running.start()
    await asked.wait()
    running.stop()
    await asyncio.sleep(0)
    may_answer.set()
    await wait_until(lambda: ticks)


# Names


def closure(said: list[str], what: str) -> Callable[[], None]:
    def job() -> None:
        said.append(what)

    return job


@pytest.mark.parametrize("once", ["machine", "cluster"])
def test_two_functions_of_one_name_are_refused_where_workers_share_them(once: Any) -> None:
    app = App()
    app.every(seconds=1, once=once)(closure([], "mail"))
    with pytest.raises(ValueError, match=r"closure.<locals>.job already.*give name="):
        app.every(seconds=2, once=once)(closure([], "purge"))
    app.every(seconds=1, once="worker")(closure([], "purge"))
    app.every(seconds=1, once=once, name="purge")(closure([], "purge"))
    with pytest.raises(ValueError, match="called purge already"):
        app.every(seconds=1, once="cluster", name="purge")(lambda: None)
    assert len(app.handlers.every) == 3


@pytest.mark.parametrize("name", [None, "", "n" * 201])
def test_a_function_without_a_name_needs_one_where_workers_share_it(name: str | None) -> None:
    with pytest.raises(ValueError, match=r"give name=|1 to 200 bytes"):
        App().every(seconds=1, once="cluster", name=name)(functools.partial(print, "x"))


async def test_a_function_without_a_name_runs() -> None:
    said: list[str] = []
    named = Job(functools.partial(said.append, "shared"), 0.05, "cluster", "a name")
    running = schedule(Job(functools.partial(said.append, "own"), 0.05, "worker"), named, claims=Noted())
    running.start()
    await wait_until(lambda: {"shared", "own"} <= set(said))
    running.stop()


# Claims


@pytest.fixture(params=["memory", "redis"])
def holding(request: pytest.FixtureRequest, valkey: ValkeyServer, prefix: str) -> Claims:
    return MemoryClaims() if request.param == "memory" else RedisClaims(valkey.url, prefix=prefix)


async def test_a_name_is_held_by_one_until_it_lets_go(holding: Claims) -> None:
    assert await holding.hold("job", "one", seconds=30)
    assert await holding.hold("job", "one", seconds=30)
    assert not await holding.hold("job", "two", seconds=30)
    await holding.release("job", "two")
    assert not await holding.hold("job", "two", seconds=30)
    await holding.release("job", "one")
    assert await holding.hold("job", "two", seconds=30)
    await holding.close()


async def test_the_first_claim_after_a_restart_of_the_store_is_answered(own_valkey: ValkeyServer, prefix: str) -> None:
    claims = RedisClaims(own_valkey.url, prefix=prefix)
    assert await claims.claim("a", seconds=30)
    own_valkey.stop()  # and the event loop has not heard of it
    own_valkey.start()
    assert await claims.claim("b", seconds=30)
    await claims.close()


async def test_a_claim_whose_answer_was_lost_is_known_again_as_our_own(own_valkey: ValkeyServer, prefix: str) -> None:
    is_losing, lost = False, 0

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answers: bool) -> None:
        nonlocal is_losing, lost
        while data := await reader.read(65536):
            if is_answers and is_losing:
                is_losing, lost = False, lost + 1
                break
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_unix_connection(own_valkey.url.removeprefix("unix://"))
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(pump(reader, store_writer, is_answers=False))
            pumps.create_task(pump(store_reader, writer, is_answers=True))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        claims, others = (RedisClaims(url, prefix=prefix) for url in (f"redis://127.0.0.1:{port}/0", own_valkey.url))
        assert await claims.claim("a", seconds=30)
        is_losing = True
        assert await claims.claim("b", seconds=30)
        assert lost == 1
        assert not await others.claim("b", seconds=30)
        await claims.close()
        await others.close()
