"""Restarts come at once first, then ever later, and a quiet minute forgives."""

from hypothesis import given
from hypothesis import strategies as st

from stickygw.supervision.backoff import LEAST_SHARE, LONGEST_DELAY_SECONDS, QUIET_SECONDS, RestartBackoff

jitters = st.floats(0, 1)


def delays(count: int, *, jitter: float = 1.0) -> list[float]:
    """The delays of `count` deaths, each at the moment of the restart before it."""
    backoff = RestartBackoff()
    now = 1000.0
    found = []
    for _ in range(count):
        found.append(backoff.delay(now=now, jitter=jitter))
        now += found[-1]
    return found


def test_the_first_restart_is_at_once_and_the_next_ones_double():
    assert delays(9) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]


def test_a_quiet_minute_resets():
    backoff = RestartBackoff()
    for _ in range(5):
        backoff.delay(now=0.0, jitter=1.0)
    restarted_at = backoff.delay(now=0.0, jitter=1.0)
    assert backoff.delay(now=restarted_at + QUIET_SECONDS, jitter=1.0) == 0.0
    assert backoff.delay(now=restarted_at + QUIET_SECONDS, jitter=1.0) == 0.1


def test_just_less_than_a_quiet_minute_does_not_reset():
    backoff = RestartBackoff()
    backoff.delay(now=0.0, jitter=1.0)
    assert backoff.delay(now=QUIET_SECONDS - 0.01, jitter=1.0) == 0.1


@given(st.lists(st.tuples(st.floats(0, 200), jitters), max_size=200))
def test_a_delay_is_never_negative_and_never_over_ten_seconds(deaths: list[tuple[float, float]]):
    backoff = RestartBackoff()
    now = 0.0
    for lived, jitter in deaths:
        now += lived
        delay = backoff.delay(now=now, jitter=jitter)
        assert 0.0 <= delay <= LONGEST_DELAY_SECONDS
        now += delay


@given(jitters, st.integers(2, 40))
def test_jitter_takes_at_most_a_quarter(jitter: float, deaths: int):
    whole = delays(deaths)[-1]
    assert LEAST_SHARE * whole <= delays(deaths, jitter=jitter)[-1] <= whole


def test_a_slot_that_dies_for_weeks_still_has_a_delay():
    assert delays(100_000)[-1] == LONGEST_DELAY_SECONDS
