"""`Audience`: a message is given once to whom it is for, on this worker and on others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import wait_until

from stickygw.apps.native import audience as audiences
from stickygw.apps.native.audience import CLOSE_WITHIN, Audience
from stickygw.bridge.base import Publication
from stickygw.bridge.hub import Hub
from stickygw.bridge.memory import MemoryBridge, MemoryBus
from stickygw.errors import RoomNameError
from stickygw.observability.counters import Counters
from stickygw.wire.envelope import GROUP_BYTES
from stickygw.wire.prepared import TEXT, Batch, PreparedMessage


class Target:
    """A connection that keeps what it gets."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.deliveries: list[list[str]] = []
        self.sent_away: list[tuple[int, str, float]] = []

    def is_meant(self, to: str) -> bool:
        return to == self.name

    def deliver(self, batch: Batch) -> None:
        self.deliveries.append([message.payload.decode() for message in batch.messages])

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        self.sent_away.append((code, reason, within))

    @property
    def got(self) -> list[str]:
        return [text for delivery in self.deliveries for text in delivery]


class Worker:
    """A hub and a bridge on a bus, and the audience over both."""

    def __init__(self, bus: MemoryBus, seed: int) -> None:
        self.targets: list[Target] = []
        self.hub = Hub(Counters())
        self.bridge = MemoryBridge(bus, on_publication=lambda *publication: self.audience.received(*publication))
        self.audience = Audience(
            self.hub, self.bridge, targets=lambda: self.targets, random_bytes=Random(seed).randbytes
        )

    async def start(self) -> Worker:
        await self.bridge.start()
        await self.audience.start()
        return self

    def target(self, *addresses: str, name: str = "") -> Target:
        target = Target(name)
        self.targets.append(target)
        for address in addresses:
            self.audience.join(address, target)
        return target

    def publish(self, rooms: str | Iterable[str], text: str, exclude: Target | None = None) -> None:
        names = rooms if isinstance(rooms, str) else tuple(rooms)
        self.audience.publish(names, PreparedMessage.of(text), exclude)


async def two_workers() -> tuple[Worker, Worker]:
    bus = MemoryBus()
    return await Worker(bus, 1).start(), await Worker(bus, 2).start()


async def all_delivered() -> None:
    """The bus takes a turn of the loop, the hub another; one more for what they have caused."""
    for _ in range(3):
        await asyncio.sleep(0)


# Rooms


async def test_a_message_in_several_rooms_comes_once_to_each_member_here_and_there() -> None:
    here, there = await two_workers()
    members = [
        worker.target(*rooms) for worker in (here, there) for rooms in (("red", "blue"), ("blue", "red"), ("blue",))
    ]
    outsider = there.target("green")
    here.publish(["red", "blue", "red", "empty"], "1")
    await all_delivered()
    assert [member.deliveries for member in members] == [[["1"]]] * 6
    assert outsider.got == []


async def test_the_excluded_gets_nothing_in_any_of_the_rooms() -> None:
    here, there = await two_workers()
    excluded, other = here.target("red", "blue"), there.target("red", "blue")
    here.publish(["red", "blue"], "1", excluded)
    await all_delivered()
    assert (excluded.got, other.got) == ([], ["1"])


async def test_nothing_is_published_if_one_of_the_names_is_none() -> None:
    here, there = await two_workers()
    members = [here.target("red"), there.target("red")]
    with pytest.raises(RoomNameError):
        here.publish(["red", "a\nb"], "1")
    await all_delivered()
    assert [member.got for member in members] == [[], []]


async def test_two_messages_in_the_same_rooms_are_two() -> None:
    here, there = await two_workers()
    member = there.target("red", "blue")
    for text in ("1", "2", "2"):
        here.publish(["red", "blue"], text)
    await all_delivered()
    assert member.got == ["1", "2", "2"]


async def test_where_a_message_has_been_is_remembered_of_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audiences, "MAX_GROUPS", 2)
    _, there = await two_workers()
    member = there.target("red", "blue")
    for room, text in (("red", "1"), ("red", "2"), ("blue", "1"), ("red", "3"), ("red", "4"), ("blue", "2")):
        there.audience.received(room, Publication(TEXT, text.encode(), group=text.encode() * GROUP_BYTES))
    await all_delivered()
    assert member.got == ["1", "2", "3", "4", "2"]  # of 2 it was forgotten, rather than remembered without an end
    assert len(there.audience._groups) == 2


ROOMS = st.lists(st.sampled_from(["red", "green", "blue"]), max_size=3, unique=True)


@given(memberships=st.lists(st.tuples(st.booleans(), ROOMS), max_size=6), published=st.lists(ROOMS, max_size=8))
def test_every_member_of_any_of_the_rooms_gets_it_once_in_order(
    memberships: list[tuple[bool, list[str]]], published: list[list[str]]
) -> None:
    async def play() -> None:
        here, there = await two_workers()
        members = [(there if is_there else here).target(*rooms) for is_there, rooms in memberships]
        for number, rooms in enumerate(published):
            here.publish(rooms, str(number))
        await all_delivered()
        for member, (_, joined) in zip(members, memberships, strict=True):
            assert member.got == [str(number) for number, rooms in enumerate(published) if set(rooms) & set(joined)]

    asyncio.run(play())


async def test_a_room_is_heard_as_long_as_somebody_is_in_it() -> None:
    here, there = await two_workers()
    first, second = there.target("red"), there.target("red")
    there.audience.leave("red", first)
    here.publish("red", "1")
    await all_delivered()
    there.audience.leave_all(second)
    here.publish("red", "2")
    await all_delivered()
    assert (first.got, second.got) == ([], ["1"])
    assert there.bridge._addresses == {"\x00direct"}


async def test_what_is_published_locally_stays_here() -> None:
    here, there = await two_workers()
    local, remote = here.target("red"), there.target("red")
    here.audience.publish_local("red", PreparedMessage.of("1"), None)
    await all_delivered()
    assert (local.got, remote.got) == (["1"], [])


# Users, sessions, connections


async def test_a_user_is_reached_on_every_worker_and_no_room_of_that_name() -> None:
    here, there = await two_workers()
    connections = [worker.target(audiences.user_address("ann")) for worker in (here, there)]
    in_room = [worker.target("ann") for worker in (here, there)]
    here.audience.send_to_user("ann", PreparedMessage.of("1"))
    await all_delivered()
    assert [target.got for target in connections] == [["1"], ["1"]]
    assert [target.got for target in in_room] == [[], []]


async def test_what_is_meant_for_a_session_comes_behind_what_was_published_in_its_rooms() -> None:
    here, there = await two_workers()
    meant, other = there.target("red", name="session:s1"), there.target("red", name="session:s2")
    there.publish("red", "1")
    there.audience.send_to("session:s1", PreparedMessage.of("2"))
    assert meant.got == ["1", "2"]
    here.audience.send_to("session:s1", PreparedMessage.of("3"))
    await all_delivered()
    assert meant.got == ["1", "2", "3"]
    assert other.got == ["1"]


@pytest.mark.parametrize("to", ["user:ann", "session:s1"])
async def test_whoever_is_disconnected_is_so_on_every_worker_with_code_and_reason(to: str) -> None:
    here, there = await two_workers()
    meant = [worker.target(audiences.user_address("ann"), name="session:s1") for worker in (here, there)]
    others = [worker.target(audiences.user_address("bob"), "ann", name="session:s2") for worker in (here, there)]
    here.audience.disconnect(to, 4001, "gründlich")
    await all_delivered()
    assert [target.sent_away for target in meant] == [[(4001, "gründlich", CLOSE_WITHIN)]] * 2
    assert [target.sent_away for target in others] == [[], []]


# Waiting


async def turns_of(awaited: Callable[[], object]) -> bool:
    """Whether the loop turns while it is awaited."""
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await awaited()  # type: ignore[misc]
    return turned.done()


async def test_an_awaited_publish_lets_the_loop_turn_now_and_then() -> None:
    here, _ = await two_workers()
    message = PreparedMessage.of("1")
    turns = []
    for _ in range(audiences.PUBLISHES_PER_TURN):
        turns.append(await turns_of(lambda: here.audience.publish("red", message, None)))
    assert turns == [False] * (audiences.PUBLISHES_PER_TURN - 1) + [True]


async def test_an_awaited_publish_waits_while_too_much_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = await two_workers()
    is_sent = asyncio.Event()
    monkeypatch.setattr(MemoryBridge, "backlog", audiences.BRIDGE_BACKLOG + 1)
    monkeypatch.setattr(here.bridge, "wait_sent", is_sent.wait)

    async def publish() -> None:
        await here.audience.publish("red", PreparedMessage.of("1"), None)

    publishing = asyncio.create_task(publish())
    await all_delivered()
    assert not publishing.done()
    is_sent.set()
    await wait_until(publishing.done)
