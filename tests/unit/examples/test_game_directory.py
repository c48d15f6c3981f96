"""Which matches the lobby of examples/game believes in."""

from __future__ import annotations

import msgpack
import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from directory import FORGOTTEN_SECONDS, MAX_LISTED, Directory, Entry


def entry(until: float, *matches: tuple[str, int], url: str | None = None, slot: int = 0) -> bytes:
    return Entry(until, url, slot, list(matches)).packed()


def test_the_lobby_lists_matches_of_all_workers_the_fullest_first():
    directory = Directory()
    here = {b"aa/0": entry(10, ("aa.1", 1), ("aa.2", 4)), b"aa/1": entry(10, ("aa.3", 2), slot=1)}
    there = {b"bb/0": entry(10, ("bb.1", 3), url="http://b")}
    assert directory.read(here | there, now=9) == []
    assert directory.listing()["matches"] == [
        ["aa.2", 4, None, 0],
        ["bb.1", 3, "http://b", 0],
        ["aa.3", 2, None, 1],
        ["aa.1", 1, None, 0],
    ]


def test_a_gateways_url_is_known_while_one_of_its_workers_says_it():
    directory = Directory()
    directory.read({b"bb/3": entry(10, url="http://b")}, now=9)
    assert directory.url_of("bb.any-match") == "http://b"
    assert directory.url_of("b.any-match") is None
    directory.read({b"bb/3": entry(10, url="http://b")}, now=10)
    assert directory.url_of("bb.any-match") is None


def test_what_a_dead_worker_said_is_not_believed_and_later_removed():
    directory = Directory()
    fields = {b"aa/0": entry(10, ("aa.1", 1))}
    assert directory.read(fields, now=10) == []
    assert directory.listing()["matches"] == []
    assert directory.read(fields, now=10 + FORGOTTEN_SECONDS + 1) == [b"aa/0"]


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb(5), msgpack.packb([10, None, 0, [], "more"])])
def test_what_other_code_has_written_is_passed_over(data):
    directory = Directory()
    assert directory.read({b"aa/0": data, b"aa/1": entry(10, ("aa.1", 1))}, now=100) == [b"aa/1"]
    assert directory.read({b"aa/0": data, b"aa/1": entry(10, ("aa.1", 1))}, now=9) == []
    assert list(directory.workers) == ["aa/1"]


@pytest.mark.parametrize("order", [(b"aa/0", b"aa/1"), (b"aa/1", b"aa/0")])
def test_a_match_that_has_just_moved_is_shown_once_where_it_was_said_last(order):
    directory = Directory()
    fields = {b"aa/0": entry(10, ("aa.1", 1), ("aa.2", 3)), b"aa/1": entry(10.5, ("aa.1", 2), slot=1)}
    directory.read({name: fields[name] for name in order}, now=9)
    assert directory.listing()["matches"] == [["aa.2", 3, None, 0], ["aa.1", 2, None, 1]]


def test_a_lobby_has_an_end():
    directory = Directory()
    directory.read({b"aa/0": entry(10, *((f"aa.{number}", 1) for number in range(MAX_LISTED + 1)))}, now=0)
    assert len(directory.listing()["matches"]) == MAX_LISTED
