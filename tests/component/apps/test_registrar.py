"""The worker's side of registering ids: it waits for the primary's word, and never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stickygw.apps.asgi.registrar import Registrar
from stickygw.observability.counters import Counters
from stickygw.wire.link import Learn, Learnt


class FakeLink:
    def __init__(self, *, is_full: bool = False) -> None:
        self.is_full = is_full
        self.sent: list[Learn] = []
        self.waiting: list[Callable[[], None]] = []

    def send(self, message: Learn) -> bool:
        if not self.is_full:
            self.sent.append(message)
        return not self.is_full

    def wait_writable(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)


def registrar(link: FakeLink | None = None, *, seconds: float = 10.0) -> tuple[Registrar, Counters]:
    counters = Counters()
    made = Registrar(counters=counters, seconds=seconds)
    if link is not None:
        made.connect(link)
    return made, counters


async def begun(made: Registrar, *keys: bytes) -> asyncio.Task[None]:
    """A registration that has come as far as it can without the primary."""
    task = asyncio.ensure_future(made.register(list(keys)))
    await asyncio.sleep(0)
    return task


async def test_registration_is_over_with_the_primarys_word_for_it() -> None:
    link = FakeLink()
    made, counters = registrar(link)
    first, second = await begun(made, b"a", b"b"), await begun(made, b"c")
    assert [message.keys for message in link.sent] == [[b"a", b"b"], [b"c"]]

    made.received(Learnt(link.sent[1].ticket))
    await second
    assert not first.done()
    made.received(Learnt(link.sent[0].ticket))
    await first
    assert counters.total("ids_not_learnt") == 0


async def test_silent_primary_is_waited_for_no_longer_than_the_bound() -> None:
    link = FakeLink()
    made, counters = registrar(link, seconds=0.01)
    await made.register([b"a"])
    assert counters.value("ids_not_learnt", "late") == 1
    made.received(Learnt(link.sent[0].ticket))  # too late is nothing


async def test_without_a_primary_nobody_waits() -> None:
    made, counters = registrar()
    await made.register([b"a"])
    assert counters.value("ids_not_learnt", "no_primary") == 1


async def test_primary_that_ends_sets_free_whoever_waits() -> None:
    for is_full in (False, True):
        made, _ = registrar(FakeLink(is_full=is_full))
        task = await begun(made, b"a")
        made.disconnect()
        async with asyncio.timeout(5):
            await task


async def test_full_link_is_asked_for_room_once_and_all_go_out_when_there_is() -> None:
    link = FakeLink(is_full=True)
    made, _ = registrar(link)
    tasks = [await begun(made, b"a"), await begun(made, b"b")]
    [writable] = link.waiting

    link.is_full = False
    writable()
    await asyncio.sleep(0)
    for message in link.sent:
        made.received(Learnt(message.ticket))
    await asyncio.gather(*tasks)
    assert [message.keys for message in link.sent] == [[b"a"], [b"b"]]
