"""Telling the application where messages may have been missed: `Gaps`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

from stickygw.bridge.addresses import is_room

log = logging.getLogger("stickygw.app")

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Gaps:
    """Calls each of `functions` with a room, one after the other: those that wait are as many as the rooms with members
    here, for a room that waits already is told once."""

    def __init__(self, functions: Sequence[Callable[[str], Awaitable[None] | None]], *, spawn: Spawn) -> None:
        self._functions = functions
        self._spawn = spawn
        self._waiting: dict[str, None] = {}
        self._is_telling = False

    def add(self, addresses: Iterable[str]) -> None:
        """Messages to these may have been missed."""
        if not self._functions:
            return
        self._waiting.update(dict.fromkeys(address for address in addresses if is_room(address)))
        if self._waiting and not self._is_telling:
            self._is_telling = True
            self._spawn(self._tell())

    async def _tell(self) -> None:
        try:
            while self._waiting:
                room = next(iter(self._waiting))
                del self._waiting[room]
                for function in self._functions:
                    try:
                        told = function(room)
                        if told is not None:
                            await told
                    except Exception:
                        log.exception("on_gap raised")
        finally:
            self._is_telling = False
