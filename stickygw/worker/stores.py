"""The session store, the hub and the bridge of a worker: store and bridge on the same Redis or Valkey."""

from __future__ import annotations

from random import SystemRandom
from types import TracebackType

from stickygw.bridge.hub import Hub
from stickygw.bridge.redis import RedisBridge
from stickygw.config.settings import Settings
from stickygw.observability.counters import Counters
from stickygw.sessions.service import SessionService
from stickygw.wire.prepared import PreparedMessage


class Stores:
    """Built from the settings, whose ``redis.url`` the primary has filled in; closed on leaving the context."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        assert settings.redis.url is not None, "the primary fills in its embedded Valkey's"
        url = settings.redis.url.get_secret_value()
        self.hub = Hub(counters)
        self.bridge = RedisBridge(
            url,
            prefix=settings.redis.prefix,
            on_message=self._deliver,
            on_gap=lambda rooms: counters.add("gaps", count=len(rooms)),
            counters=counters,
            random=SystemRandom(),
        )
        self._session_service = SessionService.over_redis(
            url,
            prefix=settings.redis.prefix,
            timeout=settings.redis.timeout,
            settings=settings.session,
            counters=counters,
        )
        self.sessions = self._session_service.sessions

    def _deliver(self, room: str, message: PreparedMessage) -> None:
        self.hub.deliver(room, message)

    async def __aenter__(self) -> Stores:
        self._session_service.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.bridge.stop()
        await self._session_service.stop()
