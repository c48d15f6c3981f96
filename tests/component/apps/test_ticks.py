"""What a function of `App.every` is told of its turn: number, lateness, and what was left out."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.virtual_time import VirtualLoop, run_virtually

from stickygw import App, Tick
from stickygw.apps.native.schedule import Job, Schedule
from stickygw.bridge.claims import Claims, ClaimsUnavailable, MemoryClaims
from stickygw.observability.counters import Counters
from stickygw.testing import AppClient

EPOCH = 1_000_000_000.0
"""When a virtual loop began, by the time of day."""


@dataclass(frozen=True)
class Turn:
    """A tick, and when it began, in seconds since the schedule's start."""

    tick: Tick
    began: float


def scheduled(
    loop: VirtualLoop, *jobs: Job, claims: Claims | None = None, counters: Counters | None = None, ahead: float = 0.0
) -> Schedule:
    return Schedule(
        jobs,
        claims=claims or MemoryClaims(),
        gateway="0000aaaa",
        counters=counters or Counters(),
        spawn=asyncio.ensure_future,
        now=lambda: EPOCH + loop.time() + ahead,
        monotonic=loop.time,
    )


# How long each turn keeps its loop from everything else, and how long it then goes on, in thousandths of the interval
turns = st.lists(st.tuples(st.integers(0, 3500), st.integers(0, 2500)), min_size=1, max_size=25)
intervals = st.sampled_from([0.01, 1 / 60, 1 / 30, 0.05, 0.0503, 1.0, 3600.0])


def played(seconds: float, plan: list[tuple[int, int]], once: Any) -> tuple[list[Turn], Counters]:
    """The turns of a job that blocks and goes on as `plan` says, and a few more that do not."""
    began: list[Turn] = []
    counters = Counters()

    async def main(loop: VirtualLoop) -> None:
        enough = asyncio.Event()

        async def job(tick: Tick) -> None:
            place = len(began)
            began.append(Turn(tick, loop.time()))
            if place < len(plan):
                blocked, going_on = plan[place]
                loop.block(blocked / 1000 * seconds)
                await asyncio.sleep(going_on / 1000 * seconds)
            elif place == len(plan) + 3:
                enough.set()

        schedule = scheduled(loop, Job(job, seconds, once, "job"), counters=counters)
        schedule.start()
        await enough.wait()
        schedule.stop()

    run_virtually(main)
    return began, counters


@given(seconds=intervals, plan=turns)
@settings(max_examples=150, deadline=None)
def test_number_lateness_and_what_was_left_out_are_those_of_the_clock(
    seconds: float, plan: list[tuple[int, int]]
) -> None:
    began, counters = played(seconds, plan, "worker")
    last = 0
    for turn in began:
        tick = turn.tick
        assert tick.number > last
        assert tick.skipped == tick.number - last - 1
        assert tick.late_seconds == pytest.approx(turn.began - tick.number * seconds, abs=1e-6)
        assert tick.late_seconds >= 0
        last = tick.number
    # Where nothing is blocked and nothing goes on, the next one is due at its deadline, however late those before were.
    for turn, next_one in zip(began[len(plan) :], began[len(plan) + 1 :], strict=False):
        assert next_one.tick.number == turn.tick.number + 1
        assert next_one.tick.late_seconds <= 0.0011
    assert counters.value("ticks") == len(began)
    assert counters.value("ticks_skipped", "busy") <= sum(turn.tick.skipped for turn in began)


@given(seconds=st.sampled_from([0.05, 1 / 7, 1.0, 3600.0]), plan=turns)
@settings(max_examples=50, deadline=None)
def test_what_runs_once_for_many_is_counted_from_1970(seconds: float, plan: list[tuple[int, int]]) -> None:
    began, _ = played(seconds, plan, "cluster")
    last = int(EPOCH / seconds)
    for turn in began:
        assert turn.tick.number > last
        assert turn.tick.skipped == turn.tick.number - last - 1
        assert turn.tick.late_seconds == pytest.approx(EPOCH + turn.began - turn.tick.number * seconds, abs=1e-5)
        last = turn.tick.number


def test_a_million_ticks_of_a_twentieth_of_a_second_do_not_drift() -> None:
    async def main(loop: VirtualLoop) -> None:
        ticks: list[Tick] = []
        schedule = scheduled(loop, Job(ticks.append, 1 / 20, "worker"))
        schedule.start()
        await asyncio.sleep(0)
        loop.block(50_000.01)
        await asyncio.sleep(10)
        schedule.stop()
        first, last = ticks[1], ticks[-1]  # the first one of all is late, and says so
        assert ticks[0].number == ticks[0].skipped + 1 == 1_000_000
        assert ticks[0].late_seconds == pytest.approx(0.01, abs=1e-6)
        assert (first.number, last.number - first.number) == (1_000_001, len(ticks) - 2)
        assert max(tick.late_seconds for tick in ticks[1:]) <= 0.0011
        assert {tick.skipped for tick in ticks[1:]} == {0}

    run_virtually(main)


def test_what_others_had_is_not_left_out_and_what_nobody_had_is() -> None:
    answers = ["ours", "theirs", "away", "away", "ours", "away", "theirs", "ours"]

    class Shared(MemoryClaims):
        async def claim(self, name: str, *, seconds: float) -> bool:
            answer = answers.pop(0) if answers else "theirs"
            if answer == "away":
                raise ClaimsUnavailable(answer)
            return answer == "ours"

    async def main(loop: VirtualLoop) -> None:
        ticks: list[Tick] = []
        schedule = scheduled(loop, Job(ticks.append, 1.0, "cluster", "job"), claims=Shared(), ahead=0.25)
        schedule.start()
        await asyncio.sleep(10)
        schedule.stop()
        assert [tick.number - int(EPOCH) for tick in ticks] == [1, 5, 8]
        assert [tick.skipped for tick in ticks] == [0, 2, 0]

    run_virtually(main)


# Who is told


def told(function: Callable[..., Any]) -> bool:
    return Job(function, 1.0, "worker").takes_tick


class Game:
    def step(self, tick: Tick) -> None:
        """Told."""

    def save(self) -> None:
        """Not told."""


async def step(tick: Tick, /) -> None:
    """Told."""


def test_a_function_is_told_if_it_has_a_parameter_without_a_default() -> None:
    for function in (step, lambda tick: tick, Game().step, functools.partial(lambda game, tick: game, "a game")):
        assert told(function)
    for function in (
        Game().save,
        lambda: None,
        lambda game="a game": game,
        lambda *all, **named: all,
        functools.partial(print, "x"),
        functools.partial(lambda game: game, "a game"),
        dict,
    ):
        assert not told(function)


@pytest.mark.parametrize("function", [lambda tick, more: None, lambda *, tick: None, Game.step])
def test_a_function_that_wants_more_is_refused_where_it_is_registered(function: Callable[..., Any]) -> None:
    app = App()
    with pytest.raises(TypeError, match=r"called with one argument, a Tick, or with none"):
        app.every(seconds=1)(function)
    assert app.handlers.every == []


async def test_an_application_s_functions_are_called_with_ticks_and_without() -> None:
    app, ticks, plain, enough = App(), list[Tick](), list[int](), asyncio.Event()

    @app.every(seconds=0.01)
    def count() -> None:
        plain.append(1)

    @app.every(seconds=0.01)
    async def note(tick: Tick) -> None:
        ticks.append(tick)
        if len(ticks) >= 5 and plain:
            enough.set()

    async with AppClient(app):
        await asyncio.wait_for(enough.wait(), 10)
    assert [tick.skipped for tick in ticks] == [
        tick.number - last - 1 for tick, last in zip(ticks, [0, *(tick.number for tick in ticks)], strict=False)
    ]
    assert all(isinstance(tick, Tick) and tick.late_seconds >= 0 for tick in ticks)
