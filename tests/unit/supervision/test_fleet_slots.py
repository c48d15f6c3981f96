"""How slots come and go, told as stories: scale, drain, restart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_story import count, generations, notes, owner, result, serving, steps
from fleet_world import GOOD, Character

from stickygw.supervision import events as to
from stickygw.supervision.operations import MAX_SLOTS
from stickygw.supervision.roster import GIVING_UP_SECONDS
from stickygw.types import Slot

BROKEN = Character(is_broken=True)
HANGING = Character(ready_after=None)


# --- scale ------------------------------------------------------------------------------------------------------------


def test_a_new_slot_opens_only_when_its_worker_is_ready() -> None:
    world = serving(1)
    ticket = world.ask(to.Scale(3))
    world.run(3.0)

    assert steps(world) == ["launch 1 g1", "open 1", "give 1", "launch 2 g1", "open 2", "give 2"]
    assert result(world, ticket) == to.Finished(ticket, "3 slots, 1 before", is_well=True)


def test_a_failed_scale_up_takes_all_new_slots_back() -> None:
    world = serving(1)
    world.characters = [replace(GOOD, obeys_after=3.0), BROKEN]
    ticket = world.ask(to.Scale(4))
    world.run(2.0)
    assert result(world, ticket) is None
    world.run(3.0)

    assert len(world.fleet.slots) == 1
    assert steps(world) == ["launch 1 g1", "open 1", "give 1", "launch 2 g1", "asked to drain 1", "close 1"]
    failed = result(world, ticket)
    assert failed is not None
    assert failed.is_target_broken
    assert failed.text.endswith("; the gateway has 1 slot as before")


def test_scaling_down_takes_the_highest_away_one_by_one() -> None:
    world = serving(4, every=replace(GOOD, moves_after=1.0, obeys_after=20.0))
    ticket = world.ask(to.Scale(2))
    assert steps(world) == ["asked to drain 3", "close 3"]
    world.run(0.9)
    assert len(world.fleet.slots) == 3

    world.run(0.2)

    assert steps(world) == ["asked to drain 3", "close 3", "asked to drain 2", "close 2"]
    assert result(world, ticket) is None
    world.run(20.0)
    assert result(world, ticket) == to.Finished(ticket, "2 slots, 4 before", is_well=True)
    assert len(world.fleet.members) == 2


def test_a_slot_is_taken_away_too_when_the_worker_of_the_one_before_dies_while_it_moves() -> None:
    world = serving(3, every=replace(GOOD, moves_after=1.0, obeys_after=20.0))
    old = owner(world, 2)
    ticket = world.ask(to.Scale(1))
    world.die(old)
    assert steps(world) == ["asked to drain 2", "close 2", "asked to drain 1", "close 1"]
    world.run(30.0)
    assert result(world, ticket) == to.Finished(ticket, "1 slots, 3 before", is_well=True)


def test_scaling_down_ends_a_worker_that_still_starts_by_sigterm() -> None:
    world = serving(2)
    world.character = replace(HANGING, obeys_after=None)
    world.die(owner(world, 1))
    world.ask(to.Scale(1))
    world.run(GIVING_UP_SECONDS + 1)

    assert steps(world) == ["launch 1 g1", "SIGTERM 1", "close 1", "SIGKILL 1"]


def test_a_slot_that_waits_for_its_restart_can_be_taken_away() -> None:
    world = serving(2)
    for _ in range(2):
        world.die(owner(world, 1))
        world.run(1.0)
    world.characters = [replace(BROKEN, ready_after=0.1)]
    world.cut(owner(world, 1))
    world.ask(to.RestartSlot(Slot(1)))
    world.run(0.15)
    assert world.fleet.slots[1].restart_at is not None
    assert len(world.fleet.slots[1].members) == 1
    world.said.clear()

    world.ask(to.Scale(1))
    world.run(2.0)

    assert "another is started" not in notes(world)
    assert [member.slot for member in world.fleet.members] == [0]


@pytest.mark.parametrize("slots", [0, -1, MAX_SLOTS + 1])
def test_impossible_numbers_of_slots_are_refused(slots: int) -> None:
    world = serving(2)
    ticket = world.ask(to.Scale(slots))
    refused = result(world, ticket)
    assert refused is not None
    assert not refused.is_well
    assert steps(world) == []


def test_scaling_down_to_slots_of_which_none_serves_is_refused() -> None:
    world = serving(2)
    world.character = HANGING
    world.die(owner(world, 0))
    ticket = world.ask(to.Scale(1))

    assert result(world, ticket) == to.Finished(ticket, "none of the first 1 slots serves", is_well=False)
    assert len(world.fleet.slots) == 2


def test_a_new_slot_runs_the_newest_generation() -> None:
    world = serving(1)
    world.ask(to.Reload())
    world.ask(to.Scale(2))
    world.run(5.0)
    assert generations(world) == [2, 2]


# --- drain and restart ------------------------------------------------------------------------------------------------


def test_a_drained_slot_stays_empty_until_it_is_restarted() -> None:
    world = serving(2)
    drain = world.ask(to.DrainSlot(Slot(1)))
    assert to.SetDrained(Slot(1), True) in world.said
    assert result(world, drain) is None
    world.run(60.0)
    assert steps(world) == ["asked to drain 1"]
    assert result(world, drain) == to.Finished(drain, "slot 1 is drained", is_well=True)

    restart = world.ask(to.RestartSlot(Slot(1)))
    world.run(1.0)

    assert to.SetDrained(Slot(1), False) in world.said
    assert steps(world)[1:] == ["launch 1 g1", "give 1"]
    assert result(world, restart) == to.Finished(restart, "slot 1 has a fresh worker", is_well=True)


def test_a_slot_that_waits_for_its_restart_can_be_drained() -> None:
    world = serving(2)
    world.character = BROKEN
    world.die(owner(world, 1))
    world.run(30.0)
    assert world.fleet.slots[1].restart_at is not None
    launched = count(world, "launch")

    world.ask(to.DrainSlot(Slot(1)))
    world.run(60.0)

    assert count(world, "launch") == launched


def test_the_last_slot_that_serves_cannot_be_drained() -> None:
    world = serving(2)
    first, second = world.ask(to.DrainSlot(Slot(1))), world.ask(to.DrainSlot(Slot(0)))
    world.run(5.0)

    assert result(world, first) == to.Finished(first, "slot 1 is drained", is_well=True)
    assert result(world, second) == to.Finished(second, "slot 0 is the last one that serves", is_well=False)
    assert generations(world) == [1, None]


def test_a_reload_passes_a_drained_slot_by_and_its_restart_catches_up() -> None:
    world = serving(2)
    world.ask(to.DrainSlot(Slot(1)))
    reload = world.ask(to.Reload())
    world.run(5.0)
    assert result(world, reload) == to.Finished(reload, "generation 2 runs in 1 slot", is_well=True)

    world.ask(to.RestartSlot(Slot(1)))
    world.run(5.0)

    assert generations(world) == [2, 2]


def test_a_restart_replaces_a_worker_that_serves_when_the_next_is_ready() -> None:
    world = serving(2)
    world.ask(to.RestartSlot(Slot(1)))
    world.run(1.0)
    assert steps(world) == ["launch 1 g1", "asked to drain 1", "give 1"]


def test_a_restart_does_not_wait_for_the_back_off() -> None:
    world = serving(2)
    world.character = BROKEN
    world.die(owner(world, 1))
    world.run(30.0)
    restart_at = world.fleet.slots[1].restart_at
    assert restart_at is not None
    assert restart_at > world.now + 2.0

    world.character = GOOD
    world.ask(to.RestartSlot(Slot(1)))
    world.run(1.0)

    assert generations(world) == [1, 1]


def test_a_restart_takes_the_worker_that_is_on_its_way() -> None:
    world = serving(2)
    world.die(owner(world, 1))
    ticket = world.ask(to.RestartSlot(Slot(1)))
    world.run(1.0)

    assert steps(world) == ["launch 1 g1", "give 1"]
    assert result(world, ticket) is not None


@pytest.mark.parametrize("command", [to.DrainSlot(Slot(7)), to.RestartSlot(Slot(7))])
def test_a_slot_that_is_not_there_is_named(command: to.Command) -> None:
    world = serving(2)
    ticket = world.ask(command)
    assert result(world, ticket) == to.Finished(ticket, "there is no slot 7: there are 2, from 0", is_well=False)


def test_steps_that_were_asked_for_at_once_add_up() -> None:
    world = serving(1)
    tickets = [world.ask(to.ScaleBy(1)) for _ in range(3)]
    world.run(10.0)
    assert [record.slot for record in world.fleet.slots] == [0, 1, 2, 3]
    assert all(finished.is_well for ticket in tickets if (finished := result(world, ticket)) is not None)
