"""`Keys`: which affinity keys are a worker's, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from stickygw.apps.native.keyed import Keys

LINGER = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> Keys:
    return Keys(is_kept=True, linger_seconds=LINGER, now=clock, max_keys=3)


def connection() -> Any:
    return object()


def visit(keys: Keys, key: bytes) -> None:
    """One connection comes and goes."""
    one = connection()
    with keys.opening(key):
        keys.opened(key, one)
    keys.ended(key, one)


def test_a_key_is_here_from_its_handshake_on_until_a_while_after_its_last_connection(keys: Keys, clock: Clock) -> None:
    first, second = connection(), connection()
    with keys.opening(b"k"):
        assert list(keys) == [b"k"]
        assert keys.is_opening(b"k")
        keys.opened(b"k", first)
    keys.opened(b"k", second)
    assert set(keys.connections_of(b"k")) == {first, second}
    keys.ended(b"k", first)
    clock.now = 2 * LINGER
    assert b"k" in keys
    keys.ended(b"k", second)
    clock.now = 3 * LINGER - 1
    assert list(keys) == [b"k"]
    clock.now = 3 * LINGER
    assert list(keys) == []
    assert b"k" not in keys


def test_a_handshake_that_fails_leaves_no_key(keys: Keys) -> None:
    with pytest.raises(ValueError, match="refused"), keys.opening(b"k"):
        raise ValueError("refused")
    assert list(keys) == []


def test_a_handshake_that_fails_while_a_key_lingers_leaves_it_lingering(keys: Keys, clock: Clock) -> None:
    visit(keys, b"k")
    clock.now = LINGER - 1
    with keys.opening(b"k"):
        clock.now = LINGER + 1
    assert list(keys) == [b"k"]
    clock.now = 3 * LINGER
    assert list(keys) == []


def test_a_key_that_came_lingers_without_connections_and_one_that_went_does_not(keys: Keys, clock: Clock) -> None:
    keys.came(b"k")
    keys.came(b"l")
    keys.went(b"k")
    assert list(keys) == [b"l"]
    clock.now = LINGER
    assert list(keys) == []


def test_a_key_that_went_is_here_while_it_has_connections(keys: Keys) -> None:
    one = connection()
    keys.opened(b"k", one)
    keys.went(b"k")
    assert keys.connections_of(b"k") == (one,)


def test_the_one_that_ended_first_makes_room(keys: Keys, clock: Clock) -> None:
    for key in (b"a", b"b", b"c"):
        visit(keys, key)
        clock.now += 1
    visit(keys, b"a")  # which now is the youngest
    visit(keys, b"d")
    assert sorted(keys) == [b"a", b"c", b"d"]


def test_beyond_the_bound_a_key_is_not_kept(keys: Keys) -> None:
    for key in (b"a", b"b", b"c"):
        keys.opened(key, connection())
    one = connection()
    with keys.opening(b"d"):
        keys.opened(b"d", one)
    keys.came(b"d")
    keys.ended(b"d", one)
    assert sorted(keys) == [b"a", b"b", b"c"]
    assert not keys.is_opening(b"d")


def test_listeners_hear_of_handshakes_and_connections(keys: Keys) -> None:
    heard: list[bytes] = []
    keys.listeners.append(heard.append)
    visit(keys, b"k")
    assert heard == [b"k"] * 3


def test_without_hooks_and_without_a_key_nothing_is_kept(clock: Clock) -> None:
    keys = Keys(is_kept=False, linger_seconds=LINGER, now=clock)
    visit(keys, b"k")
    assert list(keys) == []
    keys = Keys(is_kept=True, linger_seconds=LINGER, now=clock)
    with keys.opening(None):
        keys.opened(None, connection())
    keys.ended(None, connection())
    assert list(keys) == []
    assert None not in keys
