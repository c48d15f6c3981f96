"""What a field of a message may be."""

from __future__ import annotations

from typing import Any

import pytest

from stickygw.types import HandOverId
from stickygw.wire.shapes import is_of


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, [0, -1], [True, 1.0, "1", None]),
        (bool, [True], [1, None]),
        (float, [1.5, 2], [True, "1"]),
        (HandOverId, [7], [True, b"7"]),
        (list[str], [[], ["a"]], [["a", b"b"], ("a",), "a", {}]),
        (dict[str, dict[bytes, int]], [{}, {"a": {b"x": 1}}], [{b"a": {}}, {"a": []}, {"a": {b"x": None}}, []]),
        (bytes | None, [b"", None], ["", 0]),
        (Any, [None, [1], "a"], []),
    ],
    ids=str,
)
def test_a_value_is_of_its_type_alone(hint: Any, right: list[object], wrong: list[object]) -> None:
    assert [value for value in right if not is_of(hint)(value)] == []
    assert [value for value in wrong if is_of(hint)(value)] == []


def test_a_type_that_msgpack_does_not_bring_back_is_no_field() -> None:
    with pytest.raises(TypeError, match="no message has a field"):
        is_of(tuple[int, int])
