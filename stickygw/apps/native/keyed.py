"""Which affinity keys are this worker's: `Keys`. Kept for applications that have key hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stickygw.apps.native.connection import Connection

MAX_KEYS = 100_000
"""Keys in the table. Beyond it the one whose connections ended first is forgotten; if all have connections, the new one
is not kept: the connections of either move one by one, without a state."""


@dataclass(slots=True)
class _Kept:
    connections: set[Connection] = field(default_factory=set)
    openings: int = 0
    had_any: bool = False  # the application may keep something for it

    @property
    def is_in_use(self) -> bool:
        return bool(self.connections or self.openings)


class Keys:
    """A key is here from its first WebSocket's handshake until `linger_seconds` after its last one's end, as in the
    primary's table, or until it moves. A handshake that is refused leaves nothing. Pure: `now` is a clock.

    Without `is_kept` nothing is: no application state belongs to a key. None is no key.
    """

    def __init__(
        self, *, is_kept: bool, linger_seconds: float, now: Callable[[], float], max_keys: int = MAX_KEYS
    ) -> None:
        self._is_kept = is_kept
        self._linger_seconds = linger_seconds
        self._now = now
        self._max_keys = max_keys
        self._kept: dict[bytes, _Kept] = {}
        self._lingering: dict[bytes, float] = {}
        """Those without a connection, in the order of their ends, and until when they are here."""
        self.listeners: list[Callable[[bytes], None]] = []
        """Called with a key whenever a handshake of it begins, or is over: for who moves keys away."""

    def __iter__(self) -> Iterator[bytes]:
        """All that are here, the oldest first."""
        self._forget_old()
        return iter(tuple(self._kept))

    def __contains__(self, key: bytes | None) -> bool:
        self._forget_old()
        return key in self._kept

    def connections_of(self, key: bytes) -> tuple[Connection, ...]:
        """Its connections; their order is that of nothing."""
        kept = self._kept.get(key)
        return () if kept is None else tuple(kept.connections)

    def is_opening(self, key: bytes) -> bool:
        """Whether a WebSocket with it is in its handshake."""
        kept = self._kept.get(key)
        return kept is not None and kept.openings > 0

    @contextmanager
    def opening(self, key: bytes | None) -> Iterator[None]:
        """A handshake is under way, which may or may not become a connection."""
        kept = self._keep(key)
        if kept is None or key is None:
            yield
            return
        kept.openings += 1
        self._tell(key)
        try:
            yield
        finally:
            kept.openings -= 1
            self._linger_if_unused(key)
            self._tell(key)

    def opened(self, key: bytes | None, connection: Connection) -> None:
        """`connection` is open."""
        kept = self._keep(key)
        if kept is not None and key is not None:
            kept.connections.add(connection)
            kept.had_any = True
            self._tell(key)

    def ended(self, key: bytes | None, connection: Connection) -> None:
        """`connection` is over, or another worker has it."""
        kept = None if key is None else self._kept.get(key)
        if kept is not None and key is not None and connection in kept.connections:
            kept.connections.remove(connection)
            self._linger_if_unused(key)

    def came(self, key: bytes) -> None:
        """Its state has come from another worker; its connections may follow."""
        kept = self._keep(key)
        if kept is not None:
            kept.had_any = True
            self._linger_if_unused(key)

    def went(self, key: bytes) -> None:
        """Its state is another worker's: it does not linger."""
        kept = self._kept.get(key)
        if kept is not None and not kept.is_in_use:
            self._forget(key)

    def _keep(self, key: bytes | None) -> _Kept | None:
        if key is None or not self._is_kept:
            return None
        self._forget_old()
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= self._max_keys:
                if not self._lingering:
                    return None
                self._forget(next(iter(self._lingering)))
            kept = self._kept[key] = _Kept()
        self._lingering.pop(key, None)
        return kept

    def _linger_if_unused(self, key: bytes) -> None:
        kept = self._kept[key]
        if kept.is_in_use:
            return
        if kept.had_any:
            self._lingering[key] = self._now() + self._linger_seconds
        else:
            self._forget(key)

    def _forget_old(self) -> None:
        now = self._now()
        while self._lingering and self._lingering[key := next(iter(self._lingering))] <= now:
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        del self._kept[key]
        self._lingering.pop(key, None)

    def _tell(self, key: bytes) -> None:
        for listener in self.listeners:
            listener(key)
