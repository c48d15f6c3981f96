"""Connections that move between workers: stories, each told by hand, of what Hypothesis finds only in many examples.

`told_by` ends each of them and looks at what is promised to everybody, whatever happens (`support.move_promises`).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.move_promises import PromisingWorld
from support.move_world import ANN, CLIENTS, NEW, OLD, OTHER

IN_RED = [{"red"}] * CLIENTS


def told_by(
    tell: Callable[[PromisingWorld], None],
    *,
    is_ready: bool = True,
    rooms: list[set[str]] = IN_RED,
    is_record_small: bool = False,
) -> PromisingWorld:
    """What has come of it, when all has ended and all is as promised."""
    world = PromisingWorld()
    try:
        world.begin(rooms, is_ready, is_record_small)
        tell(world)
        world.ends_well()
    finally:
        world.bounds.undo()
    return world


def test_what_the_old_worker_gave_comes_late_to_the_new_one_and_not_twice() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(5, ["red"], False)
        world.read_publishes(OTHER, 9)
        world.receive(OLD, 9)
        world.move_and_adopt({0, 1}, 9)
        assert all(0 < len(client.got) < 2 for client in world.clients[:2])
        world.receive(NEW, 9)

    assert [client.got for client in told_by(tell).clients] == [[1]] * CLIENTS


def test_what_came_early_to_the_new_worker_is_given_to_who_comes() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(5, ["red"], False)
        world.read_publishes(OTHER, 9)
        world.receive(NEW, 9)
        world.move_and_adopt({0, 1}, 9)
        assert [client.got for client in world.clients[:2]] == [[1]] * 2

    assert [client.got for client in told_by(tell).clients] == [[1]] * CLIENTS


def test_what_waits_in_the_rooms_of_who_goes_is_given_first() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(1, ["red"], False)
        world.move_and_adopt({0}, 9)

    assert told_by(tell).clients[0].got == [1]


def test_what_was_published_before_the_new_worker_listened_is_waited_for() -> None:
    def tell(world: PromisingWorld) -> None:
        world.begin_move(True, False)
        world.settle(NEW)
        world.read_old(9)
        world.answer_ping(OLD)  # it takes copies
        world.publish(5, ["red"], False)
        world.read_publishes(OTHER, 9)  # the old worker is slow to receive it; nobody at the new one hears it
        world.settle(OLD)
        for _ in range(2):
            world.read_new(9)
            world.answer_ping(NEW)
        world.read_old(9)
        assert world.link is not None
        assert world.link.arrivals.copies.is_open
        assert world.link.departures.copies.is_open
        world.move_and_adopt({0, 1}, 9)

    rooms = [set() if number == 4 else {"red"} for number in range(CLIENTS)]
    assert told_by(tell, is_ready=False, rooms=rooms).clients[0].got == [1]


def test_a_message_in_two_rooms_is_given_once_though_it_came_to_one_of_them_only() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(5, ["red", "green"], False)
        world.read_publishes(OTHER, 9)
        world.receive(OLD, 1)  # one of the two
        world.receive(NEW, 9)
        world.move_and_adopt({0}, 9)

    rooms = [{"red", "green"}] * CLIENTS
    assert [client.got for client in told_by(tell, rooms=rooms).clients] == [[1]] * CLIENTS


def test_who_comes_while_neither_worker_can_know_what_was_missed_is_told() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(5, ["red"], False)
        world.read_publishes(OTHER, 9)  # on its way to both
        world.cut(NEW)  # which loses it
        world.mend(NEW)
        world.answer_ping(NEW)
        assert world.workers[NEW].bridge.is_heard("red")
        world.move_and_adopt({0}, 9)  # and it has not come to the old one
        assert world.clients[0].got == []

    world = told_by(tell)
    stay = world.clients[0].stay_in("red")
    assert stay is not None
    assert stay.told > 0


@pytest.mark.parametrize("sender", [0, 4])
def test_a_copy_does_not_overtake_what_was_published_before_the_move(sender: int) -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(sender, ["red"], False)
        world.begin_move(True, False)
        world.publish(sender, ["red"], False)
        world.read_new(9)
        world.read_old(9)

    world = told_by(tell, is_ready=False)
    assert [client.got for client in world.clients] == [[1, 2]] * CLIENTS
    assert world.gaps == 0


@pytest.mark.parametrize("sender", [0, 4])
def test_copies_wait_for_the_answer_to_a_ping(sender: int) -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(sender, ["red"], False)
        for number in (OLD, NEW):
            world.read_publishes(number, 9)  # and it is not received
        world.begin_move(True, False)
        world.publish(sender, ["red"], False)
        settle_unanswered(world, sender)
        world.read_new(9)
        world.read_old(9)

    world = told_by(tell, is_ready=False)
    assert [client.got for client in world.clients] == [[1, 2]] * CLIENTS
    assert world.gaps == 0


def settle_unanswered(world: PromisingWorld, sender: int) -> None:
    """The store has read all of the sender's, which says so; its partner has received nothing."""
    number = OLD if sender == 0 else NEW
    world.read_publishes(number, 9)
    world.settle(number)


def test_the_two_halves_of_a_room_hear_each_other_without_a_store() -> None:
    def tell(world: PromisingWorld) -> None:
        for number in (OLD, NEW):
            world.cut(number)
        world.publish(0, ["red"], False)
        world.move_and_adopt({1, 2}, 9)
        world.publish(1, ["red"], False)
        world.publish(3, ["red"], False)
        world.read_new(9)
        world.read_old(9)
        for _ in range(5):
            world.turn(OLD)
            world.turn(NEW)
        assert [sorted(client.got) for client in world.clients[:5]] == [[1, 2, 3]] * 5

    told_by(tell)


def test_who_was_on_the_way_when_the_new_worker_died_has_missed_nothing() -> None:
    def tell(world: PromisingWorld) -> None:
        world.move({0})
        world.publish(1, ["red"], False)
        world.die(NEW)
        world.turn(OLD)
        world.turn(OLD)

    world = told_by(tell)
    assert world.clients[0].got == [1]
    assert not world.clients[0].is_lost


def test_who_was_on_the_way_when_the_old_worker_died_is_adopted() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(1, ["red"], False)
        world.read_publishes(OLD, 9)
        world.move({0})
        world.die(OLD)

    world = told_by(tell)
    assert world.clients[0].got == [1]
    assert not world.clients[0].is_lost


# Orders to close

BOTH = [{"red", ANN}] * CLIENTS


def test_an_order_that_came_early_to_the_new_worker_is_carried_out_on_who_comes() -> None:
    def tell(world: PromisingWorld) -> None:
        world.disconnect_user(5)
        world.disconnect_session(5, 0)
        world.read_publishes(OTHER, 9)
        world.receive(NEW, 9)
        world.move_and_adopt({0, 1}, 9)
        assert [client.orders for client in world.clients[:2]] == [[1, 2], [1]]

    assert [client.orders for client in told_by(tell, rooms=BOTH).clients[:2]] == [[1, 2], [1]]


def test_an_order_that_the_old_worker_carried_out_comes_late_to_the_new_one_and_is_not_carried_out_again() -> None:
    def tell(world: PromisingWorld) -> None:
        world.disconnect_user(5)
        world.disconnect_session(5, 0)
        world.read_publishes(OTHER, 9)
        world.receive(OLD, 9)
        world.move_and_adopt({0, 1}, 9)
        world.receive(NEW, 9)
        assert world.clients[4].orders == [1]  # who was there before

    assert [client.orders for client in told_by(tell, rooms=BOTH).clients[:2]] == [[1, 2], [1]]


@pytest.mark.parametrize("sender", [1, 4])
def test_an_order_on_who_is_between_two_workers_is_carried_out_by_the_one_that_has_it_at_last(sender: int) -> None:
    def tell(world: PromisingWorld) -> None:
        world.move({0})
        world.disconnect_user(sender)
        world.disconnect_session(sender, 0)
        assert world.clients[0].orders == []

    assert told_by(tell, rooms=BOTH).clients[0].orders == [1, 2]


def test_an_order_on_who_was_on_the_way_when_the_new_worker_died_is_carried_out() -> None:
    def tell(world: PromisingWorld) -> None:
        world.move({0})
        world.disconnect_user(1)
        world.die(NEW)

    assert told_by(tell, rooms=BOTH).clients[0].orders == [1]


# Who is refused


def test_who_is_refused_has_been_given_what_came_meanwhile_and_leaves_nothing_behind() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(5, ["red"], False)
        world.read_publishes(OTHER, 9)
        world.receive(OLD, 9)  # the new worker would withhold it
        world.move({0, 1})
        world.publish(2, ["red"], False)
        world.turn(OLD)
        world.read_new(1)  # the positions
        world.read_new(1, refuses=True)
        world.read_new(9)
        world.read_old(9)
        assert world.clients[0].refused_at is not None
        assert world.clients[0].got == [1, 2]
        world.publish(2, ["red"], False)

    world = told_by(tell)
    assert world.clients[0].got == [1, 2]
    assert [sorted(client.got) for client in world.clients[1:]] == [[1, 2, 3]] * (CLIENTS - 1)


# A record that is full


def full_record(world: PromisingWorld) -> None:
    """Two messages that came to the new worker only: of the first one nothing is kept."""
    for _ in range(2):
        world.publish(5, ["red"], False)
    world.read_publishes(OTHER, 9)
    world.receive(NEW, 9)


def told_at(world: PromisingWorld, number: int, address: str) -> int:
    stay = world.clients[number].stay_in(address)
    assert stay is not None
    return stay.told


def test_who_comes_after_a_full_record_has_forgotten_something_is_told_in_that_room_alone() -> None:
    def tell(world: PromisingWorld) -> None:
        full_record(world)
        world.move_and_adopt({0}, 9)
        assert world.clients[0].got == [2]
        assert told_at(world, 0, "red")
        assert not told_at(world, 0, "green")

    world = told_by(tell, rooms=[{"red", "green"}] * CLIENTS, is_record_small=True)
    assert world.clients[0].got == [2]
    assert [client.got for client in world.clients[1:]] == [[1, 2]] * (CLIENTS - 1)


def test_who_comes_when_the_old_worker_has_answered_a_full_record_has_missed_nothing_and_is_told_nothing() -> None:
    def tell(world: PromisingWorld) -> None:
        full_record(world)
        world.read_old(9)
        world.receive(OLD, 9)
        world.answer_ping(OLD)
        world.move_and_adopt({0}, 9)
        assert world.clients[0].got == [1, 2]

    world = told_by(tell, is_record_small=True)
    assert [client.got for client in world.clients] == [[1, 2]] * CLIENTS
    assert world.gaps == 0


def test_who_comes_before_the_answer_to_a_second_full_record_is_told() -> None:
    def tell(world: PromisingWorld) -> None:
        full_record(world)
        world.read_old(9)
        world.receive(OLD, 9)
        world.answer_ping(OLD)
        full_record(world)
        world.move_and_adopt({0}, 9)
        assert world.clients[0].got == [1, 2, 4]
        assert told_at(world, 0, "red")

    told_by(tell, is_record_small=True)


def test_who_comes_while_a_full_record_is_answered_is_told_where_it_was_full_since() -> None:
    def tell(world: PromisingWorld) -> None:
        full_record(world)  # and the answer is on its way
        world.publish(5, ["green"], False)
        world.publish(5, ["green"], False)
        world.read_publishes(OTHER, 9)
        world.receive(NEW, 9)
        world.move_and_adopt({0}, 9)
        assert told_at(world, 0, "red")
        assert told_at(world, 0, "green")

    told_by(tell, rooms=[{"red", "green"}] * CLIENTS, is_record_small=True)


def test_what_is_withheld_ends_though_the_store_was_slow_when_it_was_to_end() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish_to_the_store(0, ["red"])  # before the new worker hears it
        world.begin_move(True, True)
        world.move_and_adopt({0, 1}, 9)
        world.read_old(9)
        world.finish_move()
        assert world.workers[OLD].audience._withheld  # that was the new one
        world.be_slow(OLD)
        world.finish()
        assert not world.workers[OLD].audience._withheld

    told_by(tell, is_ready=False, rooms=[{"red"} if number < 2 else set() for number in range(CLIENTS)])


def test_what_was_lost_before_the_first_copy_is_told_though_copies_overtake_the_number_that_tells_it() -> None:
    def tell(world: PromisingWorld) -> None:
        world.cut(NEW)
        world.publish(4, ["red"], False)
        world.begin_move(True, False)
        world.publish(4, ["red"], False)
        world.read_old(9)
        world.mend(NEW)
        world.finish()
        assert all(told_at(world, number, "red") for number in range(4))

    world = told_by(tell, is_ready=False, rooms=[{"red"} if number < 4 else set() for number in range(CLIENTS)])
    assert [client.got for client in world.clients[:4]] == [[2]] * 4


def test_what_was_refused_before_the_first_copy_is_told_to_who_comes() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(4, ["red"], False)
        world.refuse(NEW)
        world.begin_move(True, False)
        world.publish(4, ["red"], False)
        for number in (OLD, NEW):
            world.read_publishes(number, 9)
            world.settle(number)
        for _ in range(3):
            world.read_new(9)
            world.read_old(9)
            for number in (OLD, NEW):
                world.answer_ping(number)
        world.move_and_adopt({0}, 9)
        assert told_at(world, 0, "red")

    world = told_by(tell, is_ready=False, rooms=[{"red"} if number < 4 else set() for number in range(CLIENTS)])
    assert world.clients[0].got == [2]


def test_the_store_may_bring_what_is_newer_than_a_copy_that_is_on_its_way() -> None:
    def tell(world: PromisingWorld) -> None:
        world.begin_move(True, False)
        world.publish(0, ["red"], False, times=2)
        world.read_publishes(OLD, 9)
        world.read_new(2)  # the rooms, and the first copy
        world.ask(NEW)
        world.read_subscriptions(NEW, 9)  # too late for both
        world.publish_to_the_store(0, ["red"])
        world.receive(NEW, 9)

    world = told_by(tell, is_ready=False, rooms=[{"red"} if number < 4 else set() for number in range(CLIENTS)])
    assert world.gaps == 0


def test_copies_wait_for_a_store_that_is_slow() -> None:
    def tell(world: PromisingWorld) -> None:
        world.publish(0, ["red"], False)
        world.read_publishes(OLD, 9)
        world.begin_move(True, False)
        world.publish_to_the_store(0, ["red"])
        world.settle(OLD)
        world.read_new(9)
        world.be_slow(NEW)

    world = told_by(tell, is_ready=False)
    assert [client.got for client in world.clients] == [[1, 2]] * CLIENTS


def test_what_an_applications_key_tells_its_worker_alone_is_for_those_who_follow_it() -> None:
    def tell(world: PromisingWorld) -> None:
        world.begin_move(False, True)
        assert world.link is not None
        world.publish_local(4, "red")
        world.link.key = b"a match"
        world.link.arrivals.key_comes(world.link.key)
        world.publish_local(4, "red")
        world.publish_local(4, "red")
        world.move_and_adopt({0, 1}, 9)

    world = told_by(tell, is_ready=False)
    assert [client.got for client in world.clients[:5]] == [*[[2, 3]] * 4, [1, 2, 3]]
