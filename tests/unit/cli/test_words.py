"""Figures fit their columns whatever they are, and texts of applications cannot command the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.cli.words import as_json_line, count, delay, duration, printable, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86_400, "1d00h"), (-1, "0s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0124, "12ms"), (0.9994, "999ms"), (0.9996, "1.0s"), (99.96, "100s")]
)
def test_delays(seconds: float, text: str) -> None:
    assert delay(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *[(0, "0"), (0.04, "0.0"), (9.94, "9.9"), (9.96, "10"), (9999, "9999"), (10_000, "10.0k")],
        *[(99_960, "100k"), (999_400, "999k"), (999_600, "1.0M"), (5e9, "5.0G")],
    ],
)
def test_counts(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0B"), (999, "999B"), (1000, "1.0K"), (1 << 20, "1.0M"), (1023 << 20, "1.0G")]
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@given(st.floats(0, 8_639_999), st.floats(0, 9.9e11), st.integers(0, 1 << 49), st.floats(0, 9999))
def test_figures_fit_their_columns(up: float, number: float, memory: int, lag: float) -> None:
    assert len(duration(up)) <= 6
    assert max(len(count(number)), len(size(memory)), len(delay(lag))) <= 5


@given(st.text())
def test_printable_text_is_printable_and_stays_what_it_was_if_it_already_is(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_payloads_that_are_no_json_are_shown_as_text() -> None:
    assert as_json_line([{b"key": {b"\xff": 1}, None: 2}]) == '[{"key": {"\\\\xff": 1}, "null": 2}]'
    assert as_json_line({"raw": b"a\xff", 1: "é"}) == '{"raw": "a\\\\xff", "1": "é"}'
