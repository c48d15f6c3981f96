"""What `send`, `publish` and `join` return: they act when called, and need no await."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any


class Done:
    """Awaited, it is done at once. Not awaited, nothing is lost and nothing warns."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield  # this makes it a generator


class NextTurn:
    """Awaited, it lets the event loop turn once."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield


DONE = Done()
NEXT_TURN = NextTurn()
