"""Whatever processes, operators and the primary's clock do, in any order: the fleet keeps its rules, and recovers."""

from __future__ import annotations

import pytest
from fleet_world import Character, Process, World
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from stickygw.supervision import events as to
from stickygw.supervision.backoff import LONGEST_DELAY_SECONDS
from stickygw.supervision.operations import MAX_WAITING_COMMANDS
from stickygw.supervision.roster import CUT_SECONDS, ENDING_SECONDS, GIVING_UP_SECONDS, Limits
from stickygw.types import Slot, WorkerId

START_SECONDS = 0.5
"""Of a good worker."""
KILL_SECONDS = 0.1
LONGEST_MOVE_SECONDS = 6.0
MOST_SLOTS = 6

characters = st.builds(
    Character,
    ready_after=st.sampled_from([0.5, 0.0, 0.05, 3.0, 20.0, None]),
    is_broken=st.sampled_from([False, False, False, True]),
    lives=st.sampled_from([None, None, None, 0.0, 0.05, 0.6, 5.0, 70.0]),
    obeys_after=st.sampled_from([0.1, 0.0, 3.0, 20.0, None]),
    aborts_after=st.sampled_from([0.1, 0.0, None]),
    closes_link_before=st.sampled_from([0.0, 0.0, 0.05, 3.0]),
    is_forced=st.booleans(),
    connections=st.sampled_from([0, 10, 3_000]),
    moves_after=st.sampled_from([None, 0.0, 0.05, LONGEST_MOVE_SECONDS]),
    refused=st.sampled_from([0, 0, 1]),
    left=st.sampled_from([0, 0, 3, 2_000]),
    serves=st.sampled_from([0, 10]),
    grows=st.sampled_from([0, 20 << 20]),
)
first_ones: st.SearchStrategy[list[Character]] = st.one_of(st.just([]), st.lists(characters, max_size=2))
"""Mostly good: a game that gives up at once shows little."""
all_limits = st.builds(
    Limits,
    start_timeout=st.sampled_from([30.0, 2.0]),
    drain_timeout=st.sampled_from([30.0, 5.0]),
    drain_spread=st.sampled_from([None, 0.0, 2.0]),
    heartbeat_timeout=st.just(10.0),
    max_age=st.sampled_from([None, 15.0]),
    max_served=st.sampled_from([None, 40]),
    max_rss=st.sampled_from([None, 100 << 20, 1 << 20]),
)
slots = st.builds(Slot, st.integers(0, 5))
commands = st.one_of(
    st.builds(to.Reload),
    st.builds(to.Scale, st.integers(0, MOST_SLOTS)),
    st.builds(to.DrainSlot, slots),
    st.builds(to.RestartSlot, slots),
)
picks = st.integers(0, 20)
found = st.tuples(st.integers(0, 5), st.integers(1, 4), st.booleans())
"""A worker from before: its slot, its generation, and whether it drains."""


class FleetMachine(RuleBasedStateMachine):
    """Each rule is something that the world may do next; `Judge` holds the invariants."""

    world: World

    @initialize(
        slots=st.integers(1, 4),
        limits=all_limits,
        seed=st.integers(0, 99),
        first=first_ones,
        before=st.one_of(st.just([]), st.lists(found, max_size=6)),
        drained=st.sets(slots, max_size=2),
    )
    def begin(
        self,
        slots: int,
        limits: Limits,
        seed: int,
        first: list[Character],
        before: list[tuple[int, int, bool]],
        drained: set[Slot],
    ) -> None:
        self.limits = limits
        self.world = World(slots, limits=limits, seed=seed, beat_seconds=3.0)
        self.world.characters = first
        for slot, generation, is_draining in before:
            self.world.find(slot, generation, is_draining=is_draining)
        # There was never a time when all were drained.
        self.world.tell(to.Begun(tuple(drained) if before else ()))

    def pick(self, number: int) -> Process | None:
        """One of the living."""
        living = list(self.world.processes.values())
        return living[number % len(living)] if living else None

    # --- time ---------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0, 30.0, 70.0]), late=st.sampled_from([0.0, 0.0, 0.4]))
    def time_passes(self, seconds: float, late: float) -> None:
        self.world.run(seconds, late=late)

    @rule(seconds=st.sampled_from([2.0, 40.0]))
    def the_primary_stands_still(self, seconds: float) -> None:
        self.world.pause_primary(seconds)

    # --- workers ------------------------------------------------------------------------------------------------------

    @rule(next_ones=st.lists(characters, min_size=1, max_size=6))
    def the_next_workers_are_of_all_kinds(self, next_ones: list[Character]) -> None:
        self.world.characters = next_ones

    @rule(number=picks, is_clean=st.booleans())
    def one_dies(self, number: int, is_clean: bool) -> None:
        if process := self.pick(number):
            self.world.die(process, is_clean=is_clean)

    @rule(number=picks)
    def one_is_cut_off(self, number: int) -> None:
        if process := self.pick(number):
            self.world.cut(process)

    @rule(number=picks, where=st.sampled_from(["", "app.py:7 in spin"]))
    def one_hangs(self, number: int, where: str) -> None:
        if process := self.pick(number):
            self.world.block(process, where)

    @rule(number=picks, is_broken=st.booleans())
    def one_speaks_out_of_turn(self, number: int, is_broken: bool) -> None:
        process = self.pick(number)
        worker = WorkerId(99_999) if process is None else process.id
        if process is None or not process.is_cut:
            self.world.tell(to.WorkerFailed(worker, "no") if is_broken else to.WorkerReady(worker))

    @rule(number=picks, moved=st.integers(0, 3), left=st.integers(0, 3))
    def one_tells_of_a_move_out_of_turn(self, number: int, moved: int, left: int) -> None:
        process = self.pick(number)
        worker = WorkerId(99_999) if process is None else process.id
        if process is None or not process.is_cut:
            self.world.tell(to.WorkerMoved(worker, moved, 0, left))

    # --- operators ----------------------------------------------------------------------------------------------------

    @rule(asked=st.lists(commands, min_size=1, max_size=3))
    def operators_ask(self, asked: list[to.Command]) -> None:
        for command in asked:
            self.world.ask(command)

    @precondition(lambda self: self.world.judge.stop is None)
    @rule(late=found)
    def one_from_before_comes_late(self, late: tuple[int, int, bool]) -> None:
        slot, generation, is_draining = late
        self.world.find(slot, generation, is_draining=is_draining)

    @precondition(lambda self: self.world.now > 1010.0)
    @rule(grace=st.sampled_from([0.0, 1.5, 30.0]))
    def the_gateway_stops(self, grace: float) -> None:
        self.world.tell(to.StopAsked(grace, 0.0))

    # --- and then everything is well again ----------------------------------------------------------------------------

    @rule()
    def the_world_becomes_kind(self) -> None:
        self.world.is_kind = True
        until = self.world.now + self.bound()
        while self.world.now < until and not self.is_well():
            self.world.run(min(2.0, until - self.world.now))
        assert self.is_well(), f"not in {self.bound():.1f} s"
        self.world.is_kind = False

    def is_well(self) -> bool:
        judge = self.world.judge
        if judge.stop is not None:
            return not judge.living
        return not judge.unfinished and all(
            record.is_drained or record.owner is not None for record in self.world.fleet.slots
        )

    def bound(self) -> float:
        """Seconds until all is well: first ends what goes wrong now, then come the commands that wait."""
        judge = self.world.judge
        ending = GIVING_UP_SECONDS + ENDING_SECONDS + KILL_SECONDS
        if judge.stop is not None:
            return max((seen.ends_by for seen in judge.living.values()), default=0.0) - self.world.now + ending
        limits = self.limits
        spread = limits.drain_timeout if limits.drain_spread is None else limits.drain_spread
        draining = limits.drain_timeout + CUT_SECONDS + ENDING_SECONDS
        # A slot is taken away when the worker of the one before has said what moved, or has ended.
        one_command = MOST_SLOTS * (START_SECONDS + LONGEST_MOVE_SECONDS + spread + draining)
        first = max(limits.start_timeout, limits.heartbeat_timeout) + LONGEST_DELAY_SECONDS + ending
        return first + (1 + MAX_WAITING_COMMANDS) * one_command

    def teardown(self) -> None:
        if self.world.is_sound:  # else the failure is told already
            self.the_world_becomes_kind()
            self.the_gateway_stops(1.5)
            self.the_world_becomes_kind()


def play(examples: int, steps: int) -> None:
    """As many games of as many moves."""
    every_phase_but_explain = [Phase.reuse, Phase.generate, Phase.shrink]  # that one takes minutes here
    run_state_machine_as_test(
        FleetMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, phases=every_phase_but_explain
        ),
    )


def test_the_fleet_keeps_its_rules_and_recovers_from_anything() -> None:
    play(200, 30)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_fleet_keeps_its_rules_and_recovers_from_anything_for_long() -> None:
    play(2_000, 60)
