"""What the fleet does slot by slot, told as stories: reload, and the line of commands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_story import begun, count, generations, notes, owner, progress, result, serving, steps
from fleet_world import GOOD, LIMITS, Character, World

from stickygw.supervision import events as to
from stickygw.supervision.lifecycle import Order
from stickygw.supervision.operations import MAX_WAITING_COMMANDS
from stickygw.supervision.roster import CUT_SECONDS
from stickygw.supervision.spread import CLIENTS_PER_SECOND
from stickygw.types import Slot, WorkerId

BROKEN = Character(is_broken=True)
HANGING = Character(ready_after=None)


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_goes_slot_by_slot_and_retires_the_old_when_the_new_is_ready() -> None:
    world = serving(2)
    ticket = world.ask(to.Reload())
    world.run(10.0)

    assert steps(world) == [
        *("launch 0 g2", "asked to drain 0", "give 0"),
        *("launch 1 g2", "asked to drain 1", "give 1"),
    ]
    assert result(world, ticket) == to.Finished(ticket, "generation 2 runs in 2 slots", is_well=True)
    assert world.fleet.generation == 2


def test_a_reload_is_over_when_the_last_old_worker_is_gone() -> None:
    world = serving(1, every=replace(GOOD, obeys_after=12.0))
    ticket = world.ask(to.Reload())
    world.run(12.0)
    assert generations(world) == [2]
    assert result(world, ticket) is None
    assert world.fleet.doing == "reloading, 1 of 1 slots"

    world.run(1.0)

    assert result(world, ticket) is not None
    assert world.fleet.doing == ""


def test_a_failed_reload_leaves_the_old_serving_and_says_how_far_it_came() -> None:
    world = serving(3)
    world.characters = [GOOD, BROKEN]
    ticket = world.ask(to.Reload())
    world.run(10.0)

    assert generations(world) == [2, 1, 1]
    assert result(world, ticket) == to.Finished(
        ticket,
        "slot 1 got no new worker: ImportError: no module named 'app'; the one before it serves on; "
        "1 of 3 slots run generation 2",
        is_well=False,
        is_target_broken=True,
    )
    assert count(world, "launch") == 2


def test_a_reload_also_replaces_a_worker_that_is_only_just_starting() -> None:
    world = serving(1)
    world.die(owner(world, 0))
    world.ask(to.Reload())
    world.run(5.0)

    assert steps(world) == ["launch 0 g1", "give 0", "launch 0 g2", "asked to drain 0", "give 0"]


def test_a_worker_that_dies_after_a_failed_reload_comes_back_in_its_slots_generation() -> None:
    world = serving(2)
    world.characters = [GOOD, BROKEN]
    world.ask(to.Reload())
    world.run(10.0)
    world.die(owner(world, 0))
    world.die(owner(world, 1))
    world.run(1.0)

    assert generations(world) == [2, 1]


def test_when_old_and_new_both_die_the_slot_is_started_again() -> None:
    world = serving(1)
    world.characters = [BROKEN]
    ticket = world.ask(to.Reload())
    world.die(owner(world, 0))
    assert world.fleet.slots[0].restarts == 0  # the next one is on its way
    world.run(2.0)

    failed = result(world, ticket)
    assert failed is not None
    assert "serves on" not in failed.text
    assert generations(world) == [1]


@pytest.mark.parametrize(
    ("connections", "drain_spread", "drain_timeout", "spread"),
    [
        (1_000, None, 30.0, 1_000 / CLIENTS_PER_SECOND),
        (1_000, 7.0, 30.0, 7.0),
        (100_000, None, 30.0, 30.0),
        (0, None, 30.0, 0.0),
    ],
    ids=["500 a second", "as set", "at most drain_timeout", "nobody to wait for"],
)
def test_the_next_slot_waits_until_the_clients_have_come_over(
    connections: int, drain_spread: float | None, drain_timeout: float, spread: float
) -> None:
    limits = replace(LIMITS, drain_spread=drain_spread, drain_timeout=drain_timeout)
    world = serving(2, limits=limits, every=replace(GOOD, connections=connections))
    old = owner(world, 0)
    world.ask(to.Reload())
    world.run(0.5)
    successor = world.judge.owners[Slot(0)]
    assert to.Do(old.id, Order.DRAIN, drain_timeout, spread, ((Slot(0), successor),)) in world.said

    if spread:
        world.run(spread - 0.1)
        assert count(world, "launch") == 1
    world.run(0.2)

    assert count(world, "launch") == 2


MOVING = replace(GOOD, connections=1_000, moves_after=0.1, obeys_after=0.2)
"""It would send its clients away for two seconds, if they could not move."""


def test_the_next_slot_does_not_wait_for_clients_that_have_moved() -> None:
    world = serving(2, every=MOVING)
    ticket = world.ask(to.Reload())
    world.run(0.5 + 0.09)
    assert count(world, "launch") == 1
    world.run(0.02)
    assert count(world, "launch") == 2
    world.run(2.0)

    assert progress(world, ticket) == [
        "slot 0: generation 2 is ready; 1000 connections to come over",
        "slot 0: 1000 connections moved",
        "slot 1: generation 2 is ready; 1000 connections to come over",
        "slot 1: 1000 connections moved",
    ]
    finished = result(world, ticket)
    assert finished == to.Finished(
        ticket, "generation 2 runs in 2 slots; 2000 connections moved, 0 closed", is_well=True
    )


@pytest.mark.parametrize(
    ("drain_spread", "left", "spread"),
    [(None, 500, 1.0), (None, 0, 0.0), (7.0, 0, 0.0), (7.0, 500, 3.5), (7.0, 1_000, 7.0)],
    ids=["500 a second", "nobody", "nobody, whatever is set", "the share of what is set", "all of what is set"],
)
def test_the_next_slot_waits_for_clients_that_could_not_move(
    drain_spread: float | None, left: int, spread: float
) -> None:
    every = replace(MOVING, obeys_after=20.0, left=left)
    world = serving(2, limits=replace(LIMITS, drain_spread=drain_spread), every=every)
    world.ask(to.Reload())
    world.run(0.5 + 0.1)
    if spread:
        world.run(spread - 0.01)
        assert count(world, "launch") == 1
    world.run(0.02)
    assert count(world, "launch") == 2


def test_the_clients_that_were_closed_are_told_one_kind_beside_the_other() -> None:
    world = serving(1, every=replace(MOVING, refused=2, left=1))
    ticket = world.ask(to.Reload())
    world.run(5.0)

    assert progress(world, ticket)[1:] == [
        "slot 0: 997 connections moved, 2 refused by the new code and closed, "
        "1 that cannot move to be closed over 0.0 s"
    ]
    finished = result(world, ticket)
    assert finished is not None
    assert finished.text == "generation 2 runs in 1 slot; 997 connections moved, 3 closed"


def test_a_failed_reload_says_how_many_had_moved_before() -> None:
    world = serving(2, every=MOVING)
    world.characters = [MOVING, BROKEN]
    ticket = world.ask(to.Reload())
    world.run(10.0)

    finished = result(world, ticket)
    assert finished is not None
    assert finished.text.endswith("; 1 of 2 slots run generation 2; 1000 connections moved, 0 closed")


def test_a_worker_that_dies_while_it_moves_is_waited_for_like_one_that_drains() -> None:
    world = serving(2, every=replace(MOVING, moves_after=1.0, obeys_after=20.0))
    world.ask(to.Reload())
    old = owner(world, 0)
    world.run(0.6)
    world.die(old)
    world.run(1.8)
    assert count(world, "launch") == 1
    world.run(0.2)
    assert count(world, "launch") == 2


def test_word_of_a_move_that_is_nobodys_concern_changes_nothing() -> None:
    world = serving(2, every=replace(MOVING, moves_after=None))
    ticket = world.ask(to.Reload())
    world.run(0.6)
    for worker in (owner(world, 1).id, owner(world, 0).id, WorkerId(99)):  # the next slot's, the new one, nobody
        assert world.tell(to.WorkerMoved(worker, 5, 5, 0)) == []
    world.run(10.0)
    assert world.tell(to.WorkerMoved(WorkerId(1), 5, 5, 0)) == []

    finished = result(world, ticket)
    assert finished is not None
    assert finished.text == "generation 2 runs in 2 slots"


@pytest.mark.parametrize("command", [to.Reload(), to.RestartSlot(Slot(0))], ids=["reload", "restart"])
def test_who_is_replaced_gives_its_connections_to_the_next_in_its_slot(command: to.Command) -> None:
    world = serving(1)
    old = owner(world, 0)
    world.ask(command)
    world.run(2.0)

    assert drains(world) == [(old.id, ((0, owner(world, 0).id),))]


@pytest.mark.parametrize("command", [to.DrainSlot(Slot(1)), to.Scale(1)], ids=["drain", "scale"])
def test_who_leaves_its_slot_empty_gives_its_connections_to_the_others(command: to.Command) -> None:
    world = serving(2)
    old = owner(world, 1)
    world.ask(command)
    world.run(2.0)

    assert drains(world) == [(old.id, ((0, owner(world, 0).id),))]


def drains(world: World) -> list[tuple[WorkerId, tuple[tuple[Slot, WorkerId], ...]]]:
    """Who was asked to drain, and who takes what can move."""
    return [(do.worker, do.successors) for do in world.said if isinstance(do, to.Do) and do.order is Order.DRAIN]


def test_a_worker_that_does_not_drain_is_killed_a_little_after_it_should_have_cut() -> None:
    world = serving(1, every=replace(GOOD, obeys_after=None))
    ticket = world.ask(to.Reload())
    world.run(0.5 + LIMITS.drain_timeout + CUT_SECONDS - 0.1)
    assert "SIGKILL 0" not in steps(world)

    world.run(0.2)

    assert "SIGKILL 0" in steps(world)
    assert "worker killed slot=0" in notes(world)
    assert "worker died" not in notes(world)
    assert not world.fleet.was_forced  # that word is for the stop
    finished = result(world, ticket)
    assert finished is not None
    assert finished.is_well


# --- one thing at a time ----------------------------------------------------------------------------------------------


def test_commands_wait_in_line_and_one_too_many_is_refused() -> None:
    world = serving(1)
    tickets = [world.ask(to.Reload()) for _ in range(1 + MAX_WAITING_COMMANDS)]
    refused = world.ask(to.Reload())
    assert result(world, refused) == to.Finished(refused, "8 commands wait already", is_well=False)
    assert progress(world, tickets[1]) == ["waits for the end of: reloading, 1 of 1 slots"]

    world.run(60.0)

    ends = [said.ticket for said in world.said if isinstance(said, to.Finished)]
    assert ends == [refused, *tickets]
    assert generations(world) == [10]


def test_commands_that_are_over_at_once_do_not_hold_up_those_behind_them() -> None:
    world = serving(2)
    world.ask(to.Reload())
    tickets = [world.ask(to.DrainSlot(Slot(7))) for _ in range(3)] + [world.ask(to.Scale(1))]
    while result(world, tickets[0]) is None:
        world.run(0.01)

    assert all(result(world, ticket) for ticket in tickets[:-1])
    assert world.fleet.doing == "scaling"


def test_nothing_is_asked_before_the_first_worker_is_ready() -> None:
    world = begun()
    ticket = world.ask(to.Reload())
    assert result(world, ticket) == to.Finished(ticket, "the gateway has not started yet", is_well=False)
