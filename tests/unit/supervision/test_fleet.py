"""What the fleet does about single workers, told as stories: the start, deaths, silence, the stop."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_story import begun, count, generations, notes, owner, result, serving, steps
from fleet_world import GOOD, LIMITS, Character, World

from stickygw.supervision import events as to
from stickygw.supervision.backoff import LONGEST_DELAY_SECONDS
from stickygw.supervision.lifecycle import Order
from stickygw.supervision.roster import ENDING_SECONDS
from stickygw.types import Slot

BROKEN = Character(is_broken=True)
HANGING = Character(ready_after=None)


# --- the start --------------------------------------------------------------------------------------------------------


def test_every_slot_gets_a_worker_and_has_it_when_it_is_ready() -> None:
    world = begun(2)
    assert steps(world) == ["launch 0 g1", "launch 1 g1"]

    world.run(1.0)

    assert steps(world)[2:] == ["give 0", "give 1"]
    assert [type(said) for said in world.said if isinstance(said, to.FirstReady | to.AllReady)] == [
        to.FirstReady,
        to.AllReady,
    ]


def test_a_first_run_that_cannot_start_gives_up_once_and_starts_nothing_more() -> None:
    world = begun(3, every=BROKEN)
    world.run(60.0)

    assert [said for said in world.said if isinstance(said, to.GiveUp)] == [
        to.GiveUp("ImportError: no module named 'app'")
    ]
    assert count(world, "launch") == 3
    assert to.FirstReady() not in world.said


def test_a_worker_that_is_ready_after_the_giving_up_gets_no_slot() -> None:
    world = World(2)
    world.characters = [BROKEN, replace(GOOD, ready_after=0.525)]
    world.tell(to.Begun())
    world.run(0.526)

    assert any(isinstance(said, to.GiveUp) for said in world.said)
    assert count(world, "give") == 0


def test_a_start_that_takes_too_long_is_aborted_and_says_so() -> None:
    world = begun(1, every=HANGING)
    world.run(LIMITS.start_timeout + 1)

    assert steps(world) == ["launch 0 g1", "SIGABRT 0"]
    assert to.GiveUp("not ready in 30 s (start_timeout)") in world.said


def test_once_one_worker_has_served_a_start_that_fails_is_tried_again() -> None:
    world = World(2)
    world.characters = [GOOD, replace(BROKEN, ready_after=0.6)]
    world.tell(to.Begun())
    world.run(2.0)

    assert generations(world) == [1, 1]
    assert not any(isinstance(said, to.GiveUp) for said in world.said)
    assert to.AllReady() in world.said


@pytest.mark.parametrize("command", [to.Scale(1), to.DrainSlot(Slot(1))], ids=["taken away", "drained"])
def test_all_are_ready_without_a_slot_that_is_not_to_have_a_worker_any_more(command: to.Command) -> None:
    world = World(2)
    world.characters = [GOOD, HANGING]
    world.tell(to.Begun())
    world.run(1.0)
    assert to.AllReady() not in world.said

    world.ask(command)
    world.run(1.0)

    assert to.AllReady() in world.said
    assert "SIGTERM 1" in steps(world)


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_at_once_with_its_end_in_the_log() -> None:
    world = serving()
    world.die(owner(world, 1), "SIGSEGV")

    assert steps(world) == ["launch 1 g1"]
    assert "worker died slot=1: exited with SIGSEGV; another is started in 0.0 s" in notes(world)
    assert (world.fleet.slots[1].restarts, world.fleet.slots[1].last_failure) == (1, "exited with SIGSEGV")


def test_later_deaths_never_give_up_and_come_ever_slower() -> None:
    world = serving(1)
    world.character = BROKEN
    world.die(owner(world, 0))
    world.run(600.0)

    assert not any(isinstance(said, to.GiveUp) for said in world.said)
    assert 600 / (LONGEST_DELAY_SECONDS + 1) < count(world, "launch") < 600 / (0.75 * LONGEST_DELAY_SECONDS) + 8


def test_a_worker_that_is_cut_off_is_killed_before_its_successor_starts() -> None:
    world = serving(1)
    world.cut(owner(world, 0))
    assert generations(world) == [None]

    world.run(ENDING_SECONDS + 1)

    assert steps(world) == ["SIGKILL 0", "launch 0 g1", "give 0"]


def test_the_end_of_a_retired_worker_is_no_death_of_its_slot() -> None:
    world = serving(1)
    old = owner(world, 0)
    world.block(old)  # it does not drain
    world.ask(to.Reload())
    world.run(0.5)
    world.character = BROKEN
    world.die(owner(world, 0))
    world.run(4.5)
    record = world.fleet.slots[0]
    restarts, restart_at = record.restarts, record.restart_at
    assert restart_at is not None

    world.die(old)

    assert (record.restarts, record.restart_at) == (restarts, restart_at)


def test_a_worker_that_was_ready_dies_of_its_death_whatever_it_says() -> None:
    world = serving(1)
    world.tell(to.WorkerFailed(owner(world, 0).id, "no"))
    assert generations(world) == [1]

    world.die(owner(world, 0), "SIGSEGV")

    assert world.fleet.slots[0].last_failure == "exited with SIGSEGV"


# --- silence ----------------------------------------------------------------------------------------------------------


def test_a_silent_worker_is_aborted_then_killed_and_the_log_says_where_it_stands() -> None:
    world = serving(2, every=replace(GOOD, aborts_after=None))
    world.block(owner(world, 0), "app.py:7 in spin")
    world.run(LIMITS.heartbeat_timeout + ENDING_SECONDS + 2)

    assert steps(world) == ["SIGABRT 0", "SIGKILL 0", "launch 0 g1", "give 0"]
    assert "worker hung slot=0: its event loop stood still for 10.0 s, in app.py:7 in spin" in notes(world)
    assert "in app.py:7 in spin" in world.fleet.slots[0].last_failure


def test_where_it_stood_is_forgotten_when_it_is_heard_again() -> None:
    world = serving(1)
    process = owner(world, 0)
    world.tell(to.WorkerBlocked(process.id, "app.py:7 in spin"))
    world.run(1.5)
    world.block(process)
    world.run(LIMITS.heartbeat_timeout)

    assert "worker hung" in notes(world)
    assert "spin" not in notes(world)


def test_a_pause_of_the_primary_is_nobodys_silence() -> None:
    world = serving(2)
    world.pause_primary(3 * LIMITS.heartbeat_timeout)
    world.run(5.0)
    assert steps(world) == []


def test_a_draining_worker_that_is_silent_is_aborted_too() -> None:
    world = serving(1, every=replace(GOOD, obeys_after=None))
    world.ask(to.Reload())
    world.run(1.0)
    old = next(process for process in world.processes.values() if process.generation == 1)
    world.block(old)
    world.run(LIMITS.heartbeat_timeout)

    assert steps(world) == ["launch 0 g2", "asked to drain 0", "give 0", "SIGABRT 0"]


# --- the stop ---------------------------------------------------------------------------------------------------------


def test_a_stop_asks_the_ready_and_terminates_the_starting() -> None:
    world = serving(2)
    world.character = HANGING
    world.die(owner(world, 1))
    world.tell(to.StopAsked(30.0, 2.0))
    assert steps(world) == ["launch 1 g1", "asked to stop 0", "SIGTERM 1"]
    assert to.Do(world.judge.owners[Slot(0)], Order.STOP, 30.0, 2.0) in world.said

    world.run(1.0)

    assert world.said[-1] == to.AllGone()
    assert not world.fleet.was_forced
    assert not world.fleet.has_crashed


def test_a_stop_refuses_what_is_under_way_and_what_waits() -> None:
    world = serving(2)
    tickets = [world.ask(to.Reload()), world.ask(to.Scale(3))]
    world.tell(to.StopAsked(30.0, 0.0))
    tickets.append(world.ask(to.Reload()))

    assert [result(world, ticket) for ticket in tickets] == [
        to.Finished(ticket, "the gateway stops", is_well=False) for ticket in tickets
    ]
    world.run(60.0)
    assert count(world, "launch") == 1


def test_what_is_left_at_the_end_of_the_grace_is_killed_and_named() -> None:
    world = serving(2)
    world.block(owner(world, 1))
    world.tell(to.StopAsked(5.0, 0.0))
    world.run(4.9)
    assert count(world, "SIGKILL") == 0

    world.run(0.2)

    assert count(world, "SIGKILL") == 1
    assert "worker killed slot=1" in notes(world)
    assert world.fleet.was_forced
    assert not world.fleet.has_crashed
    assert world.said[-1] == to.AllGone()


def test_no_worker_outlives_the_grace_for_having_been_ended_before_the_stop() -> None:
    world = serving(2)
    world.character = replace(HANGING, obeys_after=None)
    world.die(owner(world, 1))
    world.ask(to.Scale(1))
    world.tell(to.StopAsked(1.5, 0.0))
    world.run(1.6)
    assert world.said[-1] == to.AllGone()


def test_a_worker_that_closes_its_link_in_the_stop_has_little_time_left() -> None:
    world = serving(1, every=replace(GOOD, obeys_after=None))
    world.tell(to.StopAsked(30.0, 0.0))
    world.cut(*world.processes.values())
    world.run(ENDING_SECONDS + 0.1)
    assert steps(world) == ["asked to stop 0", "SIGKILL 0"]


def test_a_stop_gives_no_worker_more_time_than_it_had() -> None:
    world = serving(1, every=replace(GOOD, aborts_after=None))
    world.block(owner(world, 0))
    world.run(LIMITS.heartbeat_timeout)
    world.tell(to.StopAsked(30.0, 0.0))
    world.run(ENDING_SECONDS + 0.1)
    assert steps(world) == ["SIGABRT 0", "SIGKILL 0"]


def test_a_worker_that_cuts_what_is_left_makes_the_stop_a_forced_one() -> None:
    world = serving(1, every=replace(GOOD, is_forced=True))
    world.tell(to.StopAsked(5.0, 0.0))
    world.run(1.0)
    assert world.fleet.was_forced


def test_a_worker_that_dies_in_the_stop_is_told_apart() -> None:
    world = serving(1, every=replace(GOOD, obeys_after=1.0))
    process = owner(world, 0)
    world.tell(to.StopAsked(5.0, 0.0))
    world.die(process, "SIGSEGV")
    assert world.fleet.has_crashed
    assert not world.fleet.was_forced
    assert "worker died slot=0 in the stop: exited with SIGSEGV" in notes(world)


def test_a_stop_before_the_start_is_over_at_once() -> None:
    world = World(2)
    world.tell(to.StopAsked(5.0, 0.0))
    world.tell(to.Begun())
    assert world.said == [to.AllGone()]
