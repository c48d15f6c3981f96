"""Whether what msgpack has read is of the type that a field says: `is_of`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NewType, Union, get_args, get_origin

IsOf = Callable[[object], bool]


def is_of(hint: Any) -> IsOf:
    """What tells whether a value is of the type `hint`.

    `hint`: a class, `Any`, ``list[…]``, ``dict[…, …]``, a `NewType` or a union of them; `TypeError` for others. A bool
    is no number here, and a whole number no bool; a float may be whole, as msgpack writes it.
    """
    if hint is Any:
        return lambda _value: True
    if isinstance(hint, NewType):
        return is_of(hint.__supertype__)
    origin, parts = get_origin(hint), tuple(map(is_of, get_args(hint)))
    if origin is list:
        (is_item,) = parts
        return lambda value: type(value) is list and all(map(is_item, value))
    if origin is dict:
        is_key, is_value = parts
        return lambda value: type(value) is dict and all(map(is_key, value)) and all(map(is_value, value.values()))
    if origin in (Union, types.UnionType):
        return lambda value: any(is_part(value) for is_part in parts)
    if hint is float:
        return lambda value: type(value) in (float, int)
    if isinstance(hint, type) and origin is None:
        return lambda value: type(value) is hint
    raise TypeError(f"no message has a field of the type {hint}")
