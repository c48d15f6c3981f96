"""What the fleet does slot by slot, told as stories: reload, and the line of commands."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_story import begun, count, generations, notes, owner, progress, result, serving, steps
from fleet_world import GOOD, LIMITS, Character

from stickygw.supervision import events as to
from stickygw.supervision.lifecycle import Order
from stickygw.supervision.operations import MAX_WAITING_COMMANDS
from stickygw.supervision.roster import CLIENTS_PER_SECOND, CUT_SECONDS
from stickygw.types import Slot

BROKEN = Character(is_broken=True)
HANGING = Character(ready_after=None)


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_goes_slot_by_slot_and_retires_the_old_when_the_new_is_ready() -> None:
    world = serving(2)
    ticket = world.ask(to.Reload())
    world.run(10.0)

    assert steps(world) == [
        *("launch 0 g2", "give 0", "asked to drain 0"),
        *("launch 1 g2", "give 1", "asked to drain 1"),
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

    assert steps(world) == ["launch 0 g1", "give 0", "launch 0 g2", "give 0", "asked to drain 0"]


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
    assert to.Do(old.id, Order.DRAIN, drain_timeout, spread) in world.said

    if spread:
        world.run(spread - 0.1)
        assert count(world, "launch") == 1
    world.run(0.2)

    assert count(world, "launch") == 2


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
