"""Workers that served before this primary did: who owns which slot, who drains, and what is started beside them."""

from __future__ import annotations

from dataclasses import replace

from fleet_story import begun, generations, owner, result, serving, steps
from fleet_world import GOOD, LIMITS, Character, World

from stickygw.supervision import events as to
from stickygw.supervision.lifecycle import Order, State
from stickygw.supervision.roster import CUT_SECONDS
from stickygw.types import Slot

STUBBORN = Character(obeys_after=None)


def orders(world: World) -> list[to.Do]:
    return [action for action in world.said if isinstance(action, to.Do)]


def heirs(drain: to.Do) -> list[int]:
    """The workers that take what can move."""
    return [worker for _, worker in drain.successors]


def owner_ids(world: World) -> list[int | None]:
    return [record.owner.id if record.owner else None for record in world.fleet.slots]


# --- at the beginning -------------------------------------------------------------------------------------------------


def test_found_workers_own_their_slots_and_none_is_started() -> None:
    world = World(2)
    first, second = world.find(0), world.find(1)
    assert steps(world) == []
    world.tell(to.Begun())

    assert steps(world) == ["give 0", "give 1"]
    assert owner_ids(world) == [first.id, second.id]
    assert [type(said) for said in world.said[-3:]].count(to.FirstReady) <= 1
    assert to.FirstReady() in world.said
    assert to.AllReady() in world.said


def test_a_slot_that_nobody_was_found_in_gets_a_worker_of_the_newest_generation() -> None:
    world = World(3)
    world.find(0, 3)
    world.find(2, 4)
    world.tell(to.Begun())
    assert steps(world) == ["give 0", "give 2", "launch 1 g4"]
    assert to.AllReady() not in world.said

    world.run(1.0)
    assert generations(world) == [3, 4, 4]
    assert to.AllReady() in world.said


def test_of_two_in_one_slot_the_newer_owns_it_and_the_older_gives_it_what_it_has() -> None:
    for newer_first in (False, True):
        world = World(1)
        found = {generation: world.find(0, generation) for generation in ((2, 1) if newer_first else (1, 2))}
        world.tell(to.Begun())

        assert owner_ids(world) == [found[2].id]
        [drain] = orders(world)
        assert (drain.worker, drain.order, heirs(drain)) == (found[1].id, Order.DRAIN, [found[2].id])
        world.run(1.0)
        assert [member.id for member in world.fleet.members] == [found[2].id]


def test_of_three_in_one_slot_the_newest_gets_what_the_others_have_at_once() -> None:
    world = World(1)
    found = {generation: world.find(0, generation) for generation in (2, 1, 3)}
    world.tell(to.Begun())
    assert owner_ids(world) == [found[3].id]
    assert {do.worker: heirs(do) for do in orders(world)} == {found[1].id: [found[3].id], found[2].id: [found[3].id]}


def test_one_that_drains_goes_on_draining_and_is_killed_when_its_time_is_over() -> None:
    world = World(1)
    world.characters = [STUBBORN]
    old, new = world.find(0, 1, is_draining=True), world.find(0, 2)
    world.tell(to.Begun())
    assert owner_ids(world) == [new.id]
    assert orders(world) == []

    world.run(LIMITS.drain_timeout + CUT_SECONDS - 0.1)
    assert old.orders == []
    world.run(0.2)
    assert [do.order for do in old.orders] == [Order.KILL]
    assert [member.id for member in world.fleet.members] == [new.id]


def test_a_slot_whose_only_worker_drains_gets_another() -> None:
    world = World(2)
    world.characters = [STUBBORN]
    old = world.find(0, 2, is_draining=True)
    world.find(1, 1)
    world.tell(to.Begun())
    assert steps(world) == ["give 1", "launch 0 g1"]
    world.run(1.0)
    assert owner(world, 0).id != old.id
    assert {member.state for member in world.fleet.members if member.slot == 0} == {State.DRAINING, State.READY}


def test_drained_slots_stay_empty() -> None:
    world = World(2)
    world.find(0)
    world.tell(to.Begun((Slot(1),)))
    world.run(5.0)
    assert to.SetDrained(Slot(1), True) in world.said
    assert steps(world) == ["give 0"]
    assert owner_ids(world)[1] is None
    assert to.AllReady() in world.said

    ticket = world.ask(to.RestartSlot(Slot(1)))
    world.run(1.0)
    assert result(world, ticket).is_well  # type: ignore[union-attr]
    assert owner_ids(world)[1] is not None


def test_one_that_is_found_in_a_drained_slot_drains() -> None:
    world = World(2)
    world.characters = [STUBBORN]
    left, heir = world.find(1), world.find(0)
    world.tell(to.Begun((Slot(1),)))
    assert owner_ids(world)[1] is None
    assert [do.order for do in left.orders] == [Order.DRAIN]
    assert heirs(left.orders[0]) == [heir.id]


def test_one_in_a_slot_that_is_not_to_be_drains_and_the_slot_is_no_more() -> None:
    world = World(1)
    first, beyond = world.find(0), world.find(4)
    world.tell(to.Begun())
    assert [record.slot for record in world.fleet.slots] == [0]
    assert owner_ids(world) == [first.id]
    [drain] = orders(world)
    assert (drain.worker, drain.order, heirs(drain)) == (beyond.id, Order.DRAIN, [first.id])
    world.run(1.0)
    assert [member.id for member in world.fleet.members] == [first.id]

    ticket = world.ask(to.Scale(2))
    world.run(1.0)
    assert result(world, ticket) == to.Finished(ticket, "2 slots, 1 before", is_well=True)


def test_the_next_reload_is_newer_than_whatever_was_found() -> None:
    world = World(1)
    world.find(0, 3)
    world.tell(to.Begun())
    world.find(0, 7, is_draining=True)
    ticket = world.ask(to.Reload())
    world.run(5.0)
    assert result(world, ticket).is_well  # type: ignore[union-attr]
    assert generations(world) == [8]


def test_one_that_was_found_and_dies_is_replaced() -> None:
    world = World(1)
    found = world.find(0, 5)
    world.tell(to.Begun())
    world.die(found)
    world.run(1.0)
    assert generations(world) == [5]
    assert owner(world, 0).id != found.id
    assert not world.judge.has_given_up


def test_one_that_was_found_and_says_nothing_more_is_ended() -> None:
    world = World(1)
    found = world.find(0)
    world.block(found)
    world.tell(to.Begun())
    world.run(LIMITS.heartbeat_timeout + 1.0)
    assert [do.order for do in found.orders] == [Order.ABORT]
    assert owner(world, 0).id != found.id


# --- late -------------------------------------------------------------------------------------------------------------


def test_a_late_one_gives_what_it_has_to_the_owner_of_its_slot() -> None:
    world = serving(2)
    late = world.find(1)
    assert owner(world, 1).id != late.id
    [drain] = orders(world)
    assert (drain.worker, drain.order, heirs(drain)) == (late.id, Order.DRAIN, [owner(world, 1).id])
    world.run(1.0)
    assert len(world.fleet.members) == 2


def test_a_late_one_takes_a_slot_whose_next_worker_still_starts_and_hands_it_over_to_that() -> None:
    world = World(2)
    world.find(0)
    world.characters = [replace(GOOD, ready_after=3.0)]
    world.tell(to.Begun())
    late = world.find(1)
    assert owner_ids(world)[1] == late.id
    world.run(4.0)
    assert owner_ids(world)[1] not in (None, late.id)
    [drain] = orders(world)
    assert (drain.worker, heirs(drain)) == (late.id, [owner_ids(world)[1]])


def test_a_late_one_that_drains_is_left_to_it() -> None:
    world = serving(1)
    world.characters = [STUBBORN]
    before = owner(world, 0)
    late = world.find(0, is_draining=True)
    assert (owner(world, 0), late.orders, orders(world)) == (before, [], [])


def test_a_late_one_of_a_drained_slot_drains() -> None:
    world = serving(2)
    world.ask(to.DrainSlot(Slot(1)))
    world.run(1.0)
    late = world.find(1)
    assert owner_ids(world)[1] is None
    assert [do.order for do in late.orders] == [Order.DRAIN]
    assert heirs(late.orders[0]) == [owner(world, 0).id]


def test_a_late_one_while_its_slot_is_reloaded_does_not_disturb_that() -> None:
    world = serving(1)
    ticket = world.ask(to.Reload())
    late = world.find(0)
    world.run(5.0)
    assert result(world, ticket).is_well  # type: ignore[union-attr]
    assert generations(world) == [2]
    assert late.is_gone
    assert len(world.fleet.members) == 1


def test_found_ones_are_asked_to_stop_with_the_others() -> None:
    world = begun(1)
    world.run(1.0)
    late = world.find(0)
    world.tell(to.StopAsked(5.0, 0.0))
    world.run(5.0)
    assert late.is_gone
    assert to.AllGone() in world.said
