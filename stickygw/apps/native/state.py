"""`conn.state`: an application's own values about a connection, of a kind that can go to another worker with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack

from stickygw.errors import StateValueError

MAX_VALUE_BYTES = 64 * 1024
"""Of one packed value: all connections of a worker move within seconds."""


class State(dict[str, Any]):
    """A dict whose values are None, bool, int of 64 bits, float, str, bytes, timezone-aware datetime, and lists and
    dicts of these; a tuple comes back as a list after a move. Assigning anything else raises `StateValueError`.

    A list or dict in it may still be changed to hold something else: then its connection cannot move, which is logged.
    """

    __slots__ = ()

    def __setitem__(self, name: str, value: Any) -> None:
        packed(name, value)
        super().__setitem__(name, value)

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *others: Mapping[str, Any] | Iterable[tuple[str, Any]], **values: Any) -> None:  # type: ignore[override]
        for name, value in dict(*others, **values).items():
            self[name] = value

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> State:  # type: ignore[override, misc]
        self.update(other)
        return self


def packed(name: object, value: Any) -> bytes:
    """`value`, which ``conn.state`` has as `name`, as it travels. Raises `StateValueError`."""
    if not isinstance(name, str):
        raise StateValueError(f"conn.state has text as keys, not {type(name).__name__}")
    return packed_value(f"conn.state[{name!r}]", value)


def packed_value(what: str, value: Any, *, max_bytes: int = MAX_VALUE_BYTES) -> bytes:
    """`value` as it travels; the error says that it is `what`. Raises `StateValueError`."""
    try:
        data: bytes = msgpack.packb(value, datetime=True)
        unpacked(data)  # a dict keyed by tuples can be packed, but never read again
    except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
        raise StateValueError(f"{what} cannot go to another worker with this value: {error}") from error
    if len(data) > max_bytes:
        raise StateValueError(f"{what} has {len(data)} bytes packed; at most {max_bytes} can move")
    return data


def unpacked(data: bytes) -> Any:
    """The value that `packed_value` made these bytes of. Raises what msgpack does."""
    return msgpack.unpackb(data, strict_map_key=False, timestamp=3)
