"""When workers are replaced for their age, for what they have served, and for their memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet_story import begun, count, notes, owner, serving, steps
from fleet_world import GOOD, LIMITS, Character

from stickygw.supervision import events as to
from stickygw.supervision.operations import RECYCLE_AGAIN_SECONDS
from stickygw.supervision.roster import Limits
from stickygw.types import Slot

BROKEN = Character(is_broken=True)
MIB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "every", "why"),
    [
        (replace(LIMITS, max_age=100.0), GOOD, "it is old (max_age)"),
        (replace(LIMITS, max_served=1_000), replace(GOOD, serves=10), "connections (max_served)"),
        (replace(LIMITS, max_rss=150 * MIB), replace(GOOD, grows=MIB), "MiB of memory (max_rss)"),
    ],
    ids=["max_age", "max_served", "max_rss"],
)
def test_an_expired_worker_is_replaced_a_little_before_its_limit(limits: Limits, every: Character, why: str) -> None:
    world = serving(2, limits=limits, every=every)
    world.run(75.0)
    assert steps(world) == []

    world.run(30.0)

    assert why in notes(world)
    assert [step for step in steps(world) if step.endswith("0")] == ["asked to drain 0", "give 0"]
    assert [step for step in steps(world) if step.startswith("launch")] in (
        ["launch 0 g1", "launch 1 g1"],
        ["launch 1 g1", "launch 0 g1"],
    )


def test_workers_that_started_together_expire_at_different_times() -> None:
    world = serving(4, limits=replace(LIMITS, max_age=1_000.0))
    due = {member.expires_at for member in world.fleet.members}
    assert len(due) == 4
    assert all(1_000.5 + 900 <= at <= 1_000.5 + 1_000 for at in due if at is not None)


def test_two_slots_are_never_recycled_at_once() -> None:
    world = serving(2, limits=replace(LIMITS, max_age=10.0), every=replace(GOOD, obeys_after=5.0))
    world.run(10.0)
    assert count(world, "launch") == 1
    world.run(6.0)
    assert count(world, "launch") == 2


def test_nothing_is_recycled_while_a_slot_is_empty() -> None:
    world = serving(2, limits=replace(LIMITS, max_age=20.0))
    world.characters = [replace(GOOD, ready_after=15.0)]
    world.run(10.0)
    world.die(owner(world, 1))
    world.run(14.0)
    assert steps(world) == ["launch 1 g1"]

    world.run(2.0)

    assert steps(world) == ["launch 1 g1", "give 1", "launch 0 g1", "asked to drain 0", "give 0"]


def test_while_the_fleet_is_held_nobody_is_recycled_and_what_was_asked_for_is_done() -> None:
    world = serving(2, limits=replace(LIMITS, max_age=10.0))
    world.fleet.is_held = True
    world.run(20.0)
    assert steps(world) == []
    world.tell(to.Asked(1, to.RestartSlot(Slot(0))))
    world.run(2.0)
    assert steps(world) == ["launch 0 g1", "asked to drain 0", "give 0"]

    world.fleet.is_held = False
    world.run(2.0)
    assert "launch 1 g1" in steps(world)


def test_after_a_replacement_that_failed_the_expired_one_serves_on_for_a_minute() -> None:
    world = serving(1, limits=replace(LIMITS, max_age=10.0))
    world.characters = [BROKEN]
    world.run(RECYCLE_AGAIN_SECONDS + 9.0)
    assert steps(world) == ["launch 0 g1"]
    due = world.fleet.next_deadline
    assert due is not None
    assert due < world.now + 2.0

    world.run(3.0)

    assert steps(world) == ["launch 0 g1", "launch 0 g1", "asked to drain 0", "give 0"]


def test_a_limit_that_a_fresh_worker_is_over_does_not_recycle_without_end() -> None:
    world = serving(1, limits=replace(LIMITS, max_rss=10 * MIB))
    world.run(60.0)
    assert steps(world) == []


def test_a_limit_that_a_fresh_worker_is_over_is_called_too_low() -> None:
    world = begun(1, limits=replace(LIMITS, max_rss=10 * MIB))
    world.run(1.0)
    assert "max_rss too low" in notes(world)


def test_nobody_hears_of_a_recycling_that_the_stop_ends() -> None:
    world = serving(1, limits=replace(LIMITS, max_age=10.0), every=replace(GOOD, obeys_after=5.0))
    world.run(11.0)
    assert world.fleet.doing == "recycling, 1 of 1 slots"

    world.tell(to.StopAsked(30.0, 0.0))

    assert not any(isinstance(said, to.Finished) for said in world.said)
