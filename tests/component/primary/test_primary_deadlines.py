"""Equal waits end in the order in which they began, each once, with one timer."""

from __future__ import annotations

import asyncio

from support.waiting import wait_until

from stickygw.primary.deadlines import Deadlines


async def test_waits_end_in_order_and_removed_ones_never():
    expired: list[str] = []
    deadlines: Deadlines[str] = Deadlines(0.05, on_expired=expired.append)
    for name in "abcd":
        deadlines.add(name)
    deadlines.remove("b")
    await wait_until(lambda: len(expired) == 3)
    assert expired == ["a", "c", "d"]
    assert len(deadlines) == 0
    deadlines.add("e")
    await wait_until(lambda: expired[-1] == "e")


async def test_no_wait_ends_early():
    loop = asyncio.get_running_loop()
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    deadlines: Deadlines[int] = Deadlines(0.1, on_expired=lambda item: ended.update({item: loop.time()}))

    def begin(item: int) -> None:
        begun[item] = loop.time()
        deadlines.add(item)

    begin(1)
    loop.call_later(0.05, begin, 2)  # timers come in the order in which they are due: the first still waits
    await wait_until(lambda: len(ended) == 2)
    assert begun[2] <= ended[1]  # the loop's clock stands still within a turn
    assert min(ended[item] - begun[item] for item in begun) >= 0.098


async def test_a_wait_that_begins_anew_in_its_own_end_ends_again():
    expired: list[int] = []

    def again(item: int) -> None:
        expired.append(item)
        if len(expired) < 4:
            deadlines.add(item)

    deadlines: Deadlines[int] = Deadlines(0.02, on_expired=again)
    deadlines.add(1)
    deadlines.add(2)
    await wait_until(lambda: len(expired) >= 4)
    deadlines.clear()
    assert expired[:4] == [1, 2, 1, 2]


async def test_the_next_wait_ends_though_the_one_before_raised():
    expired: list[int] = []
    errors: list[str] = []

    def fail_first(item: int) -> None:
        expired.append(item)
        if item == 1:
            raise ValueError("one")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(str(context["exception"])))
    deadlines: Deadlines[int] = Deadlines(0.02, on_expired=fail_first)
    deadlines.add(1)
    deadlines.add(2)
    await wait_until(lambda: expired == [1, 2])
    assert errors == ["one"]
