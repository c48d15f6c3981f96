"""The application's own client of the gateway's Redis or Valkey: `OwnRedis`."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from stickygw.errors import OutsideGateway

MAX_CONNECTIONS = 16
"""Of one worker's application; further commands wait for one, for `timeout` seconds each."""


class OwnRedis:
    """Connects to the store at `url` when it is first asked, with a pool that is the application's alone.

    `prefix`: of the gateway's keys. `timeout`: seconds that connecting, waiting for a free connection, and each answer
    may take. Nothing is retried: what was perhaps done is not done again. `url` None: there is no store.
    """

    def __init__(self, url: str | None, *, prefix: str, timeout: float) -> None:
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._client: Redis | None = None

    @property
    def client(self) -> Redis:
        """The client. Raises `OutsideGateway` where there is no store."""
        if self._client is None:
            if self._url is None:
                raise OutsideGateway(
                    "app.redis is the store of a gateway, and this application runs without one: test it with "
                    "`stickygw.testing.gateway`, or give `AppClient(app, redis_url=…)` a Redis or Valkey"
                )
            self._client = self._made(self._url)
        return self._client

    def key(self, name: str) -> str:
        """The key of the application's that is called `name`. Raises `ValueError` for no name."""
        if not name:
            raise ValueError("a key of the application's has a name of at least one character")
        return f"{self._prefix}:app:{name}"

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _made(self, url: str) -> Redis:
        options = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": False,
            # With these, redis-py would not look whether a connection that was idle has ended.
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        pool = BlockingConnectionPool.from_url(url, max_connections=MAX_CONNECTIONS, timeout=self._timeout, **options)
        pool.connection_kwargs.update(options)  # options in the URL would win otherwise
        return Redis.from_pool(pool)
