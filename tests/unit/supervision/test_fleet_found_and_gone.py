"""Workers that served before this primary did, and end, or come, at a bad moment."""

from __future__ import annotations

from fleet_story import owner
from fleet_world import GOOD, World

from stickygw.supervision import events as to
from stickygw.types import Slot


def gave_up(world: World) -> bool:
    return any(isinstance(action, to.GiveUp) for action in world.said)


def test_the_end_of_a_drain_is_no_sign_that_the_application_cannot_start() -> None:
    world = World(1)
    world.characters = [GOOD]
    drains = world.find(0, 1, is_draining=True)
    world.tell(to.Begun())
    world.die(drains, "status 0", is_clean=True)
    assert not gave_up(world)
    world.run(1.0)
    assert owner(world, 0).id != drains.id


def test_one_that_comes_while_its_slot_waits_for_a_restart_ends_the_wait() -> None:
    world = World(1)
    world.find(0)
    world.tell(to.Begun())
    record = world.fleet.slots[0]
    while record.restart_at is None:  # each crash makes the next wait longer
        world.die(world.processes[owner(world, 0).id])
        world.run(0.01 if record.restart_at else 1.0)
    late = world.find(0)
    assert owner(world, 0).id == late.id
    deadline = world.fleet.next_deadline
    assert deadline is None or deadline > world.now


def test_a_late_one_with_a_higher_number_does_not_oust_what_this_primary_has_started() -> None:
    world = World(2)
    world.find(1, 1)
    world.tell(to.Begun())
    world.run(1.0)
    fresh = owner(world, 0)
    late = world.find(0, 2)
    assert owner(world, 0) is fresh
    assert fresh.id != late.id


def test_one_beyond_the_slots_may_be_gone_before_the_beginning() -> None:
    world = World(1)
    world.find(0)
    beyond = world.find(3)
    world.die(beyond)
    world.tell(to.Begun())
    assert [record.slot for record in world.fleet.slots] == [Slot(0)]


def test_a_scale_that_was_half_done_can_be_taken_back() -> None:
    world = World(3)
    for slot in (0, 1):
        world.find(slot, 1)
    leaves = world.find(2, 1, is_draining=True)
    world.tell(to.Begun())
    world.ask(to.Scale(2))
    world.ask(to.Scale(3))
    world.die(leaves, "status 0", is_clean=True)
    world.run(5.0)
    assert [owner(world, slot).slot for slot in range(3)] == [0, 1, 2]
    assert owner(world, 2).id != leaves.id
