"""What an application says of its rooms by patterns of their names: `RoomRules`."""

from __future__ import annotations

import re
from typing import get_args

from stickygw.bridge.addresses import is_room
from stickygw.types import SlowConsumer


class RoomRules:
    """Rules in the order in which they were given; the first whose pattern is the room's decides."""

    def __init__(self) -> None:
        self._rules: list[tuple[re.Pattern[str], SlowConsumer]] = []

    def add(self, pattern: str, *, slow_consumer: SlowConsumer) -> None:
        """For rooms whose whole name is `pattern`, in which ``*`` stands for any characters, or none.

        Raises `ValueError` for an empty pattern, and for what is no `SlowConsumer`.
        """
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(f"{pattern!r} is no pattern of room names: write 'chat:*', say")
        if slow_consumer not in get_args(SlowConsumer):
            raise ValueError(f"slow_consumer={slow_consumer!r} is none of {', '.join(get_args(SlowConsumer))}")
        parts = (re.escape(part) for part in pattern.split("*"))
        self._rules.append((re.compile(".*".join(parts), re.DOTALL), slow_consumer))

    def slow_consumer(self, address: str, default: SlowConsumer) -> SlowConsumer:
        """What becomes of members of `address` that are slow; a user's connections always have the `default`."""
        if is_room(address):
            for pattern, slow_consumer in self._rules:
                if pattern.fullmatch(address):
                    return slow_consumer
        return default
