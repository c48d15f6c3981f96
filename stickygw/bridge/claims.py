"""What only one of many may do: who claims its name first does it. `Claims`."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

CLAIM_SECONDS = 1.0
"""How long the store may take to answer."""


class ClaimsUnavailable(Exception):
    """The store does not say who was first."""


class Claims(Protocol):
    """Names that can be claimed once."""

    async def claim(self, name: str, *, seconds: float) -> bool:
        """Whether we are the first to claim `name`, which is remembered for `seconds`. Raises `ClaimsUnavailable`: we
        may have been."""

    async def close(self) -> None:
        """Let go of what it holds."""


class MemoryClaims:
    """For one worker alone: it is always the first."""

    async def claim(self, name: str, *, seconds: float) -> bool:
        """See `Claims.claim`."""
        return True

    async def close(self) -> None:
        """Nothing is held."""


class RedisClaims:
    """Keys ``<prefix>:claim:<name>`` in the Redis or Valkey at `url`; connects at the first claim, once."""

    def __init__(self, url: str, *, prefix: str) -> None:
        self._prefix = prefix
        self._client = Redis.from_url(url, max_connections=4, socket_timeout=None, retry=Retry(NoBackoff(), 0))

    async def claim(self, name: str, *, seconds: float) -> bool:
        """See `Claims.claim`."""
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                key = f"{self._prefix}:claim:{name}"
                return bool(await self._client.set(key, b"", nx=True, px=math.ceil(seconds * 1000)))
        except (RedisError, OSError, TimeoutError) as error:
            raise ClaimsUnavailable(f"the store does not answer: {error}") from error

    async def close(self) -> None:
        """See `Claims.close`."""
        await self._client.aclose()
