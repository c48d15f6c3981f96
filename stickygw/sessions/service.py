"""Sessions with all that they need: a store, and word of what others write there. `SessionService`."""

from __future__ import annotations

from random import SystemRandom

from stickygw.config.settings import SessionSettings
from stickygw.observability.counters import Counters
from stickygw.reconnect import connections
from stickygw.sessions.base import SessionStore
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.registry import Sessions
from stickygw.sessions.tracking import Tracking


class SessionService:
    """`sessions` over `store`, which live between `start` and `stop`. `timeout`: seconds for one exchange with it."""

    def __init__(
        self,
        store: SessionStore,
        *,
        timeout: float,
        settings: SessionSettings,
        counters: Counters | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        self._store = store
        self._tracking = tracking
        self.sessions = Sessions(
            store,
            ttl=settings.ttl,
            touch_interval=settings.touch_interval,
            timeout=timeout,
            lifetime=settings.lifetime,
            is_tracked=self._is_tracked,
            counters=counters,
            queue_writes=settings.store_down == "queue",
        )

    @classmethod
    def over_redis(
        cls, url: str, *, prefix: str, timeout: float, settings: SessionSettings, counters: Counters | None = None
    ) -> SessionService:
        """Over the Redis or Valkey at `url`; `prefix`: of its keys."""
        tracking = Tracking(
            connections(url),
            prefix=prefix,
            on_invalidated=lambda ids: service.sessions.invalidated(ids),
            random=SystemRandom(),
        )
        store = RedisSessionStore.from_url(url, prefix=prefix, timeout=timeout)
        service = cls(store, timeout=timeout, settings=settings, counters=counters, tracking=tracking)
        return service

    def start(self) -> None:
        """Begin, in tasks of its own."""
        self.sessions.start()
        if self._tracking is not None:
            self._tracking.start()
        if isinstance(self._store, MemorySessionStore):
            self._store.on_changed.append(self.sessions.invalidated)

    async def stop(self) -> None:
        """End them, and let go of the store."""
        self.abandon()
        if self._tracking is not None:
            await self._tracking.stop()
        await self.sessions.stop()
        await self._store.close()

    def abandon(self) -> None:
        """Hear no more of writes to a store in memory. All that is left to do where its loop is closed. Idempotent."""
        if isinstance(self._store, MemorySessionStore) and self.sessions.invalidated in self._store.on_changed:
            self._store.on_changed.remove(self.sessions.invalidated)

    def _is_tracked(self) -> bool:
        """Whether we are told of every write just now."""
        return isinstance(self._store, MemorySessionStore) or (
            self._tracking is not None and self._tracking.armed.is_set()
        )
