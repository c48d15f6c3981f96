"""Connections that move from one worker to two others at once, as a drain and a scale-down do: told by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from support.move_promises import PromisingWorld
from support.move_world import CLIENTS, NEW, OLD, OTHER
from support.moving_workers import MoveLink


@contextmanager
def both_ways() -> Iterator[PromisingWorld]:
    """All are in one room; clients with even numbers belong to the new worker, the rest to the other one. In the end
    all have all, in order."""
    world = PromisingWorld()
    try:
        world.begin([{"red"}] * CLIENTS, False)
        world.begin_move(False, True, is_wide=True)
        yield world
        world.ends_well()
        assert [client.got for client in world.clients] == [[*range(1, len(world.messages) + 1)]] * CLIENTS
    finally:
        world.bounds.undo()


def publish_to_old(world: PromisingWorld) -> None:
    """One at the other worker publishes, and has not reached the store when the old one gives it to its clients."""
    world.publish(5, ["red"], False)
    world.read_old(9, OTHER)
    world.turn(OLD)
    assert world.clients[0].got == [1]


def test_what_a_copy_brought_before_the_store_had_it_does_not_come_twice() -> None:
    with both_ways() as world:
        publish_to_old(world)
        world.move_and_adopt({0}, 9)
        world.move_and_adopt({2}, 9)
        world.answer_ping(NEW)
        world.read_publishes(OTHER, 9)


def test_who_came_may_go_again_when_the_move_has_ended() -> None:
    with both_ways() as world:
        publish_to_old(world)
        world.move_and_adopt({0}, 9)
        newcomer = world.workers[NEW].connections[-1]
        assert world.workers[NEW].audience._withheld.has(newcomer)
        world.move({1, 2, 3})
        for number in (NEW, OTHER):
            world.read_new(9, number=number)
            world.read_old(9, number)
        world.finish_move()
        world.answer_ping(OLD)  # it was the new one
        assert not world.workers[OLD].audience._withheld.has(newcomer)


def test_who_publishes_through_one_worker_and_then_through_another_is_heard_in_order() -> None:
    with both_ways() as world:
        world.publish(0, ["red"], False)
        world.read_publishes(OLD, 9)
        world.move({0})
        world.read_new(9)
        world.publish(0, ["red"], False)
        world.read_publishes(NEW, 9)
        world.receive(OTHER, 9)  # and not what is in the link


def test_a_number_that_is_told_after_a_loss_does_not_make_copies_old() -> None:
    with both_ways() as world:
        world.cut(OLD)
        world.publish(2, ["red"], False)
        world.mend(OLD)
        world.tell_heads(OLD)
        for number in (OLD, NEW, OTHER):
            world.read_publishes(number, 9)
        for number in (NEW, OTHER):
            world.receive(number, 9)
            world.read_new(9, number=number)


# Two workers that give to one at once


def read_all(world: PromisingWorld, link: MoveLink, old: int) -> None:
    """What is in the link, and what the store has for its ends; nothing is published that waits."""
    for _ in range(4):
        with link.new.loop.running():
            while link.to_new:
                link.read_new(world.arrived)
        with link.old.loop.running():
            while link.to_old:
                link.read_old(world.refused)
        for number in (NEW, old):
            world.answer_ping(number)
            world.turn(number)


def begun(world: PromisingWorld, old: int) -> MoveLink:
    link = MoveLink(world.workers[old], world.workers[NEW], False, world.tick())
    world.open.append(link)
    world.links.append(link)
    link.begin(world.told)
    read_all(world, link, old)
    link.settle(link.old)
    link.settle(link.new)
    read_all(world, link, old)
    assert link.departures.copies.is_open
    assert link.arrivals.copies.is_open
    return link


def test_who_may_miss_what_another_s_copy_brought_before_the_record_began_is_told() -> None:
    world = PromisingWorld()
    try:
        world.begin([{"red"}] * CLIENTS, False)
        first = begun(world, OTHER)
        world.publish(5, ["red"], False)  # the store is slow
        read_all(world, first, OTHER)
        assert world.clients[4].got == [1]
        second = begun(world, OLD)
        with second.old.loop.running():
            second.move([each for each in second.old.connections if each.client is world.clients[0]])
        read_all(world, second, OLD)
        stay = world.clients[0].stay_in("red")
        assert stay is not None
        assert stay.told > 0
    finally:
        world.bounds.undo()
