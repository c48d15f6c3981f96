"""Who goes next to another worker, and what ``on_move_out`` has said of them: `MoveOuts`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from stickygw.apps.native.connection import Connection
from stickygw.apps.native.runtime import Runtime, settled

log = logging.getLogger("stickygw.move")


class MoveOuts:
    """Connections that rest and are not told to go on again: they go, or stay for good. So ``on_move_out`` runs once.

    At most `max_count`: those that can be frozen in one step. `grace_seconds`: how long the hooks of one may take.
    `on_failed` is called with one whose hook has raised or takes longer, `on_changed` when one more may be ready.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_count: int,
        grace_seconds: float,
        on_failed: Callable[[Connection], None],
        on_changed: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._hooks = runtime.app.handlers.move_out
        self._max_count = max_count
        self._grace_seconds = grace_seconds
        self._on_failed = on_failed
        self._on_changed = on_changed
        self._values: dict[Connection, tuple[Any, ...] | None] = {}  # None: the hooks run

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._values

    def take_from(self, resting: Collection[Connection]) -> None:
        """Choose so many more of those that rest as there is room for."""
        for connection in resting:
            if len(self._values) >= self._max_count:
                break
            if connection in self._values:
                continue
            self._values[connection] = None if self._hooks else ()
            if self._hooks:
                self._runtime.spawn(self._ask(connection))

    @property
    def ready(self) -> list[Connection]:
        """Those whose hooks are done."""
        return [connection for connection, values in self._values.items() if values is not None]

    def values_of(self, connection: Connection) -> tuple[Any, ...]:
        """What each ``on_move_out`` has returned for it."""
        return self._values.get(connection) or ()

    def forget(self, connection: Connection) -> None:
        """It has gone, or stays."""
        self._values.pop(connection, None)

    async def _ask(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._grace_seconds):
                values = [await settled(function(connection)) for function in self._hooks]
        except Exception:
            log.exception("on_move_out raised, or took longer than move_grace; the connection does not move")
            if connection in self._values:
                self._on_failed(connection)
        else:
            if connection in self._values:
                self._values[connection] = tuple(values)
        self._on_changed()
