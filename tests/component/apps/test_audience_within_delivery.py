"""What members do while they are given something: their connection is found ended, or it makes others join, leave and
publish. `Audience` and the bridge agree on who is where all the same."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from support.hub_members import Member, delivered

from stickygw.apps.native.audience import Audience
from stickygw.bridge import hub as hubs
from stickygw.bridge.base import Publication
from stickygw.bridge.hub import Hub
from stickygw.bridge.memory import MemoryBridge, MemoryBus
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import TEXT, PreparedMessage


class Worker:
    """An audience over a hub and a bridge. Members of red that are slow are treated in a way of their own."""

    def __init__(self) -> None:
        self.hub = Hub(Counters(), lambda room: "drop_oldest" if room == "red" else "disconnect")
        self.bridge = MemoryBridge(MemoryBus(), on_publication=lambda *_: None)
        self.audience = Audience(self.hub, self.bridge, targets=lambda: (), random_bytes=Random(1).randbytes)

    def publish(self, room: str, text: str) -> None:
        self.audience.publish_local(room, PreparedMessage.of(text), None)

    def member(self, *rooms: str) -> Member:
        member = Member()
        for room in rooms:
            self.audience.join(room, member)
        return member


def does(member: Member, *acts: Callable[[], object]) -> None:
    """With each delivery `member` does the next of `acts`."""
    waiting = iter(acts)
    member.on_deliver = lambda: next(waiting, lambda: None)()


async def test_a_connection_that_is_found_ended_in_joining_a_room_is_in_none() -> None:
    worker = Worker()
    member = worker.member("green")
    does(member, lambda: worker.audience.leave_all(member))
    worker.publish("green", "1")
    worker.audience.join("blue", member)
    assert worker.hub.rooms_of(member) == ()
    assert worker.bridge._addresses == set()


async def test_a_room_that_is_joined_while_its_last_member_leaves_everything_is_heard() -> None:
    worker = Worker()
    leaver, joiner = worker.member("green", "blue"), Member()
    does(leaver, lambda: worker.publish("blue", "2"), lambda: worker.audience.join("green", joiner))
    worker.publish("green", "1")
    worker.audience.leave_all(leaver)
    assert worker.bridge._addresses == set(map(str, worker.hub.rooms_of(joiner)))


async def test_a_room_that_is_joined_while_its_last_member_leaves_it_is_heard() -> None:
    worker = Worker()
    leaver, joiner = worker.member("green"), Member()
    does(leaver, lambda: worker.audience.join("green", joiner))
    worker.publish("green", "1")
    worker.audience.leave("green", leaver)
    assert worker.hub.rooms_of(joiner) == ("green",)
    assert worker.bridge._addresses == {"green"}


async def test_what_is_published_meanwhile_comes_behind_what_was_published_before() -> None:
    worker = Worker()
    member = worker.member("red", "green")

    def publish_and_catch_up() -> None:
        worker.publish("green", "3")
        worker.hub.catch_up(member)

    does(member, publish_and_catch_up)
    worker.publish("red", "1")
    worker.publish("green", "2")
    await delivered(worker.hub)
    assert member.got == ["1", "2", "3"]


@pytest.mark.parametrize("is_from_here", [True, False])
async def test_whoever_joins_while_a_full_room_makes_place_gets_a_message_in_several_rooms_once(
    monkeypatch: pytest.MonkeyPatch, is_from_here: bool
) -> None:
    monkeypatch.setattr(hubs, "MAX_UNDELIVERED", 1)
    worker = Worker()
    first, joiner = worker.member("green"), worker.member("blue")
    does(first, lambda: worker.audience.join("green", joiner))
    worker.publish("green", "1")
    if is_from_here:
        does(first, lambda: worker.audience.join("black", joiner))
        worker.member("black")
        worker.audience.publish(["black", "green", "blue"], PreparedMessage.of("2"), None)
    else:
        for room in ("green", "blue"):
            worker.audience.received(room, Publication(TEXT, b"2", group=b"together"))
    await delivered(worker.hub)
    assert joiner.got == ["2"]
