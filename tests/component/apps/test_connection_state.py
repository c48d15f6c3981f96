"""`conn.state` keeps what can go to another worker, and refuses anything else where it is assigned."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.native.state import MAX_VALUE_BYTES, State, packed, unpacked
from stickygw.errors import StateValueError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), values, max_size=4)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_what_it_takes_comes_back_as_it_went(value: Any) -> None:
    assert unpacked(packed("name", value)) == value


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, 2**64, datetime(2026, 1, 1), {(1, 2): 3}, "\ud800", "x" * (MAX_VALUE_BYTES + 1)],
    ids=["an object", "a set", "too large", "no time zone", "a tuple as key", "a lone surrogate", "too long"],
)
@pytest.mark.parametrize(
    "assign",
    [
        lambda state, value: state.__setitem__("name", value),
        lambda state, value: state.setdefault("name", value),
        lambda state, value: state.update(name=value),
        lambda state, value: state.update({"name": value}),
        lambda state, value: state.__ior__({"name": value}),
    ],
    ids=["[]", "setdefault", "update", "update with a dict", "|="],
)
def test_what_cannot_move_is_refused_where_it_is_assigned(assign: Callable[[State, Any], Any], value: Any) -> None:
    state = State()
    with pytest.raises(StateValueError, match="name"):
        assign(state, value)
    assert state == {}


def test_a_key_is_text() -> None:
    with pytest.raises(StateValueError, match="text as keys"):
        State()[1] = 2  # type: ignore[index]


def test_what_is_there_stays_with_setdefault() -> None:
    state = State()
    state.update([("a", 1)], b=2)
    assert state.setdefault("a", 3) == 1
    assert state == {"a": 1, "b": 2}
