"""Connections that move from one worker to two others at once, as a drain and a scale-down do: told by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.move_promises import PromisingWorld
from support.move_world import CLIENTS, NEW, OLD, OTHER
from support.moving_workers import MoveLink


class WideWorld(PromisingWorld):
    """The old worker gives to both others: `link` leads to the new one, `wide` to the other."""

    def begin_both(self) -> None:
        self.begin_move(False, False)
        old, other = self.workers[OLD], self.workers[OTHER]
        self.wide = MoveLink(old, other, False, self.tick())
        self.wide.begin(self.told)
        self.finish()
        for link in (self.link, self.wide):
            assert link is not None
            link.settle(link.old)
            link.settle(link.new)
        self.finish()
        assert self.wide.arrivals.copies.is_open
        assert self.wide.departures.copies.is_open

    def read_wide(self) -> None:
        """Both read all that is in the link between them."""
        with self.wide.new.loop.running():
            while self.wide.to_new:
                self.wide.read_new(self.arrived)
        with self.wide.old.loop.running():
            while self.wide.to_old:
                self.wide.read_old(self.refused)

    def finish(self) -> None:
        super().finish()
        while hasattr(self, "wide") and (self.wide.to_new or self.wide.to_old):
            self.read_wide()
            super().finish()

    def end_both(self) -> None:
        """As `MovingOut` does it: no link ends before the store has what each of the others published."""
        self.wide.finish()
        self.read_publishes(OTHER, 99)
        self.read_wide()
        with self.wide.old.loop.running():
            self.wide.end(self.wide.old)
        self.finish_move()


@pytest.fixture
def world() -> Iterator[WideWorld]:
    world = WideWorld()
    try:
        world.begin([{"red"}] * CLIENTS, False)
        world.begin_both()
        yield world
        world.ends_well()
    finally:
        world.bounds.undo()


def test_what_a_copy_brought_before_the_store_had_it_does_not_come_twice(world: WideWorld) -> None:
    world.publish(5, ["red"], False)
    world.read_wide()  # the copy; the store is slow
    world.turn(OLD)
    assert world.clients[0].got == [1]
    world.move_and_adopt({0}, 9)
    world.move_and_adopt({1}, 9)
    world.answer_ping(NEW)
    world.read_publishes(OTHER, 9)
    world.end_both()
    world.finish()
    assert [client.got for client in world.clients] == [[1]] * CLIENTS


def test_who_came_may_go_again_when_the_move_has_ended(world: WideWorld) -> None:
    world.publish(5, ["red"], False)
    world.read_wide()
    world.turn(OLD)
    world.move_and_adopt({0}, 9)
    newcomer = world.workers[NEW].connections[-1]
    assert world.workers[NEW].audience._withheld.has(newcomer)
    world.refuse(OTHER)  # it does not come through the store, ever
    world.end_both()
    world.finish()
    assert not world.workers[OLD].audience._withheld.has(newcomer)  # the new one is the next old one
