"""What an application says of its rooms by patterns of their names: `RoomRules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from stickygw.bridge.addresses import is_room
from stickygw.types import SlowConsumer


class RoomRules:
    """Rules in the order in which they were given; the first whose pattern is the room's decides."""

    def __init__(self) -> None:
        self._rules: list[tuple[list[str], SlowConsumer]] = []  # what stands between the stars

    def add(self, pattern: str, *, slow_consumer: SlowConsumer) -> None:
        """For rooms whose whole name is `pattern`, in which ``*`` stands for any characters, or none.

        Raises `ValueError` for an empty pattern, and for what is no `SlowConsumer`.
        """
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"{pattern!r} is no pattern of room names: write 'chat:*', say")
        if slow_consumer not in get_args(SlowConsumer):
            raise ValueError(f"slow_consumer={slow_consumer!r} is none of {', '.join(get_args(SlowConsumer))}")
        self._rules.append((pattern.split("*"), slow_consumer))

    def slow_consumer(self, address: str, default: SlowConsumer) -> SlowConsumer:
        """What becomes of members of `address` that are slow; a user's connections always have the `default`."""
        if is_room(address):
            for parts, slow_consumer in self._rules:
                if _is_whole(address, parts):
                    return slow_consumer
        return default


def _is_whole(name: str, parts: Sequence[str]) -> bool:
    """Whether `name` is the first part, some characters, the next part and so on to the last one.

    Each part in the middle is looked for behind the one before, once: a regular expression would try all places, and
    names are the clients' choice.
    """
    first, *rest = parts
    if not rest:
        return name == first
    *middle, last = rest
    position, end = len(first), len(name) - len(last)
    if end < position or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
