"""What `send`, `publish` and `join` return: they act when called, and need no await."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
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


class Later:
    """Awaited, it waits for what the function gives; not awaited, the function is not even called."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()


DONE = Done()
NEXT_TURN = NextTurn()
