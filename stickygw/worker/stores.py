"""The session store, the hub and the bridge of a worker, and the application's own client: all on the same Redis or
Valkey."""

from __future__ import annotations

from random import SystemRandom
from types import TracebackType

from stickygw.apps.native.own_redis import OwnRedis
from stickygw.bridge.base import OnGap, OnPublication
from stickygw.bridge.claims import RedisClaims
from stickygw.bridge.hub import Hub
from stickygw.bridge.redis import RedisBridge
from stickygw.config.settings import Settings
from stickygw.observability.counters import Counters
from stickygw.sessions.service import SessionService
from stickygw.wire.envelope import EnvelopeKeys


class Stores:
    """Built from the settings, whose ``redis.url`` the primary has filled in; closed on leaving the context.

    `on_publication` and `on_gap` are for whoever runs the application to set, before the bridge is started.
    """

    on_publication: OnPublication
    on_gap: OnGap

    def __init__(self, settings: Settings, counters: Counters) -> None:
        assert settings.redis.url is not None, "the primary fills in its embedded Valkey's"
        url = settings.redis.url.get_secret_value()
        self.hub = Hub(counters)
        secrets = [secret.get_secret_value().encode() for secret in settings.secret] if settings.redis.sign else []
        self.bridge = RedisBridge(
            url,
            prefix=settings.redis.prefix,
            keys=EnvelopeKeys(secrets),
            on_publication=lambda address, publication: self.on_publication(address, publication),
            on_gap=lambda addresses: self.on_gap(addresses),
            counters=counters,
            random=SystemRandom(),
        )
        self.claims = RedisClaims(url, prefix=settings.redis.prefix)
        self.own_redis = OwnRedis(url, prefix=settings.redis.prefix, timeout=settings.redis.timeout)
        self._session_service = SessionService.over_redis(
            url,
            prefix=settings.redis.prefix,
            timeout=settings.redis.timeout,
            settings=settings.session,
            counters=counters,
        )
        self.sessions = self._session_service.sessions

    async def __aenter__(self) -> Stores:
        self._session_service.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.bridge.stop()
        await self._session_service.stop()
        await self.claims.close()
        await self.own_redis.close()
