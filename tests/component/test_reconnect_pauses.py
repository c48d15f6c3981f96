"""The pauses between attempts to have a connection: they grow until one has stood for a while."""

from __future__ import annotations

from random import Random

from stickygw.reconnect import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, STAND_SECONDS, Backoff


class Longest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pauses(backoff: Backoff, clock: Clock, *stood: float | None) -> list[float]:
    """The longest pauses after connections that stood so long; None: there was none."""
    found = []
    for seconds in stood:
        if seconds is not None:
            backoff.succeeded("it")
            clock.now += seconds
        backoff.failed()
        found.append(backoff.next_seconds())
    return found


def test_pauses_double_up_to_the_longest() -> None:
    clock = Clock()
    found = pauses(Backoff(Longest(), clock), clock, *[None] * 10)
    assert found[:3] == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]
    assert found[-1] == LONGEST_PAUSE_SECONDS


def test_a_connection_that_stood_begins_anew_and_one_that_did_not_does_not() -> None:
    clock = Clock()
    found = pauses(Backoff(Longest(), clock), clock, None, STAND_SECONDS, STAND_SECONDS - 0.1, 0.0)
    assert found == [FIRST_PAUSE_SECONDS * factor for factor in (1, 1, 2, 4)]


def test_the_first_end_since_one_that_stood_is_news() -> None:
    clock = Clock()
    backoff = Backoff(Longest(), clock)
    assert backoff.failed()
    backoff.next_seconds()
    backoff.succeeded("it")
    assert not backoff.failed()
    backoff.next_seconds()
    backoff.succeeded("it")
    clock.now += STAND_SECONDS
    assert backoff.failed()
