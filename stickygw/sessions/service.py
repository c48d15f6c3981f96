"""Sessions with all that they need: a store, and word of what others write there. `SessionService`."""

from __future__ import annotations

from random import SystemRandom
from typing import Any

from stickygw.reconnect import connections
from stickygw.sessions.base import SessionStore
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.registry import Sessions
from stickygw.sessions.tracking import Tracking


class SessionService:
    """`Sessions` between `start` and `stop`; `options` are theirs."""

    def __init__(self, store: SessionStore, *, tracking: Tracking | None = None, **options: Any) -> None:
        self._store = store
        self._tracking = tracking
        is_told = isinstance(store, MemorySessionStore)
        self.sessions = Sessions(store, is_tracked=lambda: is_told or self._is_armed, **options)
        if isinstance(store, MemorySessionStore):
            store.on_changed.append(self.sessions.invalidated)

    @classmethod
    def over_redis(cls, url: str, *, prefix: str, timeout: float, **options: Any) -> SessionService:
        """Over the Redis or Valkey at `url`. `prefix`: of its keys; `timeout`: seconds for each call."""
        tracking = Tracking(
            connections(url),
            prefix=prefix,
            on_invalidated=lambda ids: service.sessions.invalidated(ids),
            random=SystemRandom(),
        )
        store = RedisSessionStore.from_url(url, prefix=prefix, timeout=timeout)
        service = cls(store, tracking=tracking, timeout=timeout, **options)
        return service

    @property
    def _is_armed(self) -> bool:
        return self._tracking is not None and self._tracking.armed.is_set()

    def start(self) -> None:
        """Begin, in tasks of its own."""
        self.sessions.start()
        if self._tracking is not None:
            self._tracking.start()

    async def stop(self) -> None:
        """End them, and let go of the store."""
        if self._tracking is not None:
            await self._tracking.stop()
        await self.sessions.stop()
        if isinstance(self._store, MemorySessionStore):
            self._store.on_changed.remove(self.sessions.invalidated)
        await self._store.close()
