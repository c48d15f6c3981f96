"""When a drain closes what: spread evenly, in no step with others, each once."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.native.drain import SpreadClosing, closing_times


@given(count=st.integers(0, 200), spread=st.floats(0, 60), seed=st.integers())
def test_each_connection_closes_at_a_moment_of_its_own_part_of_the_spread(count: int, spread: float, seed: int) -> None:
    times = closing_times(count, spread_seconds=spread, random=random.Random(seed))
    assert len(times) == count
    for number, time in enumerate(times):
        assert number * spread / count <= time + 1e-9
        assert time <= (number + 1) * spread / count + 1e-9


class Clock:
    """A loop whose time stands still until a test moves it."""

    class Timer:
        def __init__(self, when: float, callback) -> None:
            self.when, self.callback = when, callback

        def cancel(self) -> None:
            self.callback = None

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Clock.Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback) -> "Clock.Timer":
        self.timers.append(Clock.Timer(when, callback))
        return self.timers[-1]

    @property
    def waiting(self) -> list["Clock.Timer"]:
        return [timer for timer in self.timers if timer.callback is not None]

    def advance(self, until: float) -> None:
        while due := [timer for timer in self.waiting if timer.when <= until]:
            callback, due[0].callback = due[0].callback, None
            self.now = max(self.now, due[0].when)
            callback()
        self.now = until


def closing(clock: Clock, count: int, closed: list[tuple[float, object]]) -> SpreadClosing[object]:
    return SpreadClosing(
        clock,  # type: ignore[arg-type]
        [object() for _ in range(count)],
        spread_seconds=10.0,
        random=random.Random(1),
        close=lambda connection: closed.append((clock.now, connection)),
    )


def test_all_are_closed_once_one_after_the_other_by_one_timer() -> None:
    clock, closed = Clock(), []
    closing(clock, 50, closed)
    assert len(clock.waiting) == 1
    clock.advance(105.0)
    assert 20 <= len(closed) <= 30, "half of the time, half of the connections"
    clock.advance(110.0)
    assert len({connection for _, connection in closed}) == len(closed) == 50
    assert clock.waiting == []


def test_they_are_closed_in_random_order() -> None:
    order = [*range(50)]
    closed: list[int] = []
    clock = Clock()
    SpreadClosing(clock, order, spread_seconds=1.0, random=random.Random(1), close=closed.append)  # type: ignore[arg-type]
    clock.advance(102.0)
    assert sorted(closed) == order != closed


@pytest.mark.parametrize(("added_at", "latest"), [(103.0, 110.0), (111.0, 111.0)])
def test_one_that_opens_meanwhile_is_closed_in_the_time_that_is_left(added_at: float, latest: float) -> None:
    clock, closed = Clock(), []
    drain = closing(clock, 1, closed)
    late = object()
    clock.advance(added_at)
    drain.add(late)
    clock.advance(latest)
    assert [connection for _, connection in closed if connection is late] == [late]
    assert len(closed) == 2


def test_cancelled_it_closes_no_more() -> None:
    clock, closed = Clock(), []
    drain = closing(clock, 50, closed)
    clock.advance(105.0)
    drain.cancel()
    count = len(closed)
    clock.advance(120.0)
    assert len(closed) == count
