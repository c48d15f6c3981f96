"""`Looks`: few at once, each session by one at a time, and nobody waits for another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.waiting import wait_until

from stickygw.sessions.looks import LOOKS_AT_ONCE, Looks
from stickygw.types import SessionId

SLOW, QUICK = SessionId("5" * 32), SessionId("9" * 32)


class Looking:
    """Looks at `SLOW` take until `may_go_on`."""

    def __init__(self) -> None:
        self.looks = Looks(self._look)
        self.begun: list[SessionId] = []
        self.may_go_on = asyncio.Event()

    async def _look(self, id: SessionId, is_named: bool) -> None:
        self.begun.append(id)
        if id == SLOW:
            await self.may_go_on.wait()


@pytest.fixture
async def looking() -> AsyncIterator[Looking]:
    looking = Looking()
    looking.looks.start()
    yield looking
    await looking.looks.stop()


async def test_a_look_that_takes_long_keeps_no_other_waiting(looking: Looking) -> None:
    looking.looks.add([SLOW], is_named=True)
    await wait_until(lambda: looking.begun == [SLOW])
    looking.looks.add([QUICK], is_named=True)
    await wait_until(lambda: looking.begun == [SLOW, QUICK])


async def test_a_session_that_is_always_written_to_has_one_looker(looking: Looking) -> None:
    for _ in range(2 * LOOKS_AT_ONCE):
        looking.looks.add([SLOW], is_named=True)
        await asyncio.sleep(0)
    looking.looks.add([QUICK], is_named=True)
    await wait_until(lambda: QUICK in looking.begun)
    assert looking.begun.count(SLOW) == 1
    looking.may_go_on.set()
    await wait_until(lambda: looking.begun.count(SLOW) == 2)  # for what was said while it was looked at


async def test_an_id_is_in_it_until_its_look_is_over(looking: Looking) -> None:
    looking.looks.add([SLOW], is_named=True)
    assert SLOW in looking.looks
    await wait_until(lambda: looking.begun)
    assert SLOW in looking.looks
    looking.may_go_on.set()
    await wait_until(lambda: SLOW not in looking.looks)
