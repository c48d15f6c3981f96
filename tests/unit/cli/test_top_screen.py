"""What ``top`` shows fits the terminal, and what matters most is kept where not all does."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from support.fake_primary import STATUS

from stickygw.cli.top_screen import KEYS_LINE, screen


def shown(status: dict[str, Any], *, news: str = "", width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(screen(status, Text(news), height=height), height=height)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def with_workers(number: int, **changes: Any) -> dict[str, Any]:
    worker = STATUS["workers"][0] | {"report": {}} | changes
    return STATUS | {"workers": [worker | {"slot": slot} for slot in range(number)], "slots_detail": []}


def test_it_fits_80_columns_without_cutting_a_figure() -> None:
    largest = {"pid": 4_194_304, "uptime": 8_600_000, "connections": 10_000, "cpu": 9.99, "lag": 99.9, "queued": 99_999}
    largest |= {"received_per_second": 99_949.0, "sent_per_second": 99_949.0, "rss": 1 << 39, "generation": 999}
    lines = shown(with_workers(1, **largest, state="backing off"))
    assert len(lines) == 24
    figures = "999 4194304 99d12h 10.0k 99.9k 99.9k 999% 99.9s 512G 100k"
    assert " ".join(lines[5].split()) == f"0 backing off {figures}"
    assert lines[2].endswith("99.9k out/s")


def test_a_slots_owner_comes_first_and_a_slot_without_worker_has_a_line() -> None:
    table = [line.split()[:2] for line in shown(STATUS)[5:11]]
    assert table == [
        ["0", "ready"],
        ["0", "draining"],
        ["1", "ready"],
        ["1", "starting"],
        ["2", "blocked"],
        ["3", "backing"],
    ]


def test_the_last_two_lines_are_keys_and_news() -> None:
    assert shown(STATUS, news="drain 2: done")[-2:] == [KEYS_LINE, "drain 2: done"]
    assert shown(STATUS, news="x" * 100)[-1] == "x" * 79 + "…"


def test_workers_that_do_not_fit_are_counted() -> None:
    lines = shown(with_workers(100))
    assert [line.split()[0] for line in lines[5:21]] == [str(slot) for slot in range(16)]
    assert lines[21:] == ["… and 84 more", KEYS_LINE, ""]
    assert [line.split()[0] for line in shown(with_workers(17))[5:22]] == [str(slot) for slot in range(17)]


def test_what_is_wrong_keeps_room_beside_workers_that_do_not_fit() -> None:
    lines = shown(with_workers(100, blocked="chat.py:48 rank"))
    assert lines[18:22] == [f"slot {slot}: blocked in chat.py:48 rank" for slot in range(4)]
    assert lines[17] == "… and 88 more"


def test_silence_is_told_but_not_that_of_a_worker_that_starts() -> None:
    assert "slot 0: silent for 4s" in shown(with_workers(1, silent_for=4.2))
    assert not any("silent" in line for line in shown(with_workers(1, silent_for=4.2, state="starting")))


@pytest.mark.parametrize(("width", "height"), [(200, 60), (40, 10), (20, 7), (10, 3), (1, 1)])
def test_any_terminal_gets_as_many_lines_as_it_has(width: int, height: int) -> None:
    lines = shown(STATUS, width=width, height=height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width
