"""Telling the application where messages may have been missed: `Gaps`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

from stickygw.bridge.addresses import is_room

log = logging.getLogger("stickygw.app")

MANY_WAITING = 1000

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Gaps:
    """Calls each of `functions` with a room that has members here, one room after the other.

    A room that waits already is told once, and one that has been left is not told: so those that wait are about as many
    as rooms with members, `has_members` says which.
    """

    def __init__(
        self,
        functions: Sequence[Callable[[str], Awaitable[None] | None]],
        *,
        has_members: Callable[[str], bool],
        spawn: Spawn,
    ) -> None:
        self._functions = functions
        self._has_members = has_members
        self._spawn = spawn
        self._waiting: dict[str, None] = {}
        self._is_telling = False

    def add(self, addresses: Iterable[str]) -> None:
        """Messages to these may have been missed."""
        if not self._functions:
            return
        if len(self._waiting) > MANY_WAITING:  # an `on_gap` takes its time: some may have been left meanwhile
            self._waiting = {room: None for room in self._waiting if self._has_members(room)}
        self._waiting.update(dict.fromkeys(filter(is_room, addresses)))
        if self._waiting and not self._is_telling:
            self._is_telling = True
            self._spawn(self._tell())

    async def _tell(self) -> None:
        try:
            while self._waiting:
                room = next(iter(self._waiting))
                del self._waiting[room]
                if not self._has_members(room):
                    continue
                for function in self._functions:
                    try:
                        told = function(room)
                        if inspect.isawaitable(told):
                            await told
                    except Exception:
                        log.exception("on_gap raised")
        finally:
            self._is_telling = False
