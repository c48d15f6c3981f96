"""What only one of many may do, once or at a time: `Claims`."""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

CLAIM_SECONDS = 1.0
"""How long the store may take to answer."""

# It answers the same to who asks again, so a command whose answer was lost can be sent once more.
HOLD = """
-- KEYS: a name. ARGV: who wants it, for how many milliseconds. Answers with 1 if they have it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

RELEASE = """
-- KEYS: a name. ARGV: who has it, perhaps.
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
"""


class ClaimsUnavailable(Exception):
    """The store does not say who has it."""


class Claims(Protocol):
    """Names that can be claimed once, or held for a while. All of it raises `ClaimsUnavailable`: it may be done."""

    async def claim(self, name: str, *, seconds: float) -> bool:
        """Whether we are the first to claim `name`, which is remembered for `seconds`."""

    async def hold(self, name: str, holder: str, *, seconds: float) -> bool:
        """Whether `holder` has `name` for `seconds` from now: nobody else had it. Called again, it has it longer."""

    async def release(self, name: str, holder: str) -> None:
        """`holder` has `name` no longer, if it had it."""

    async def close(self) -> None:
        """Let go of the connection; what is held stays so until its time is over."""


class MemoryClaims:
    """For one worker alone: it is always the first, and what it holds is forgotten with it."""

    def __init__(self) -> None:
        self._holders: dict[str, str] = {}

    async def claim(self, name: str, *, seconds: float) -> bool:
        """See `Claims.claim`."""
        return True

    async def hold(self, name: str, holder: str, *, seconds: float) -> bool:
        """See `Claims.hold`."""
        return self._holders.setdefault(name, holder) == holder

    async def release(self, name: str, holder: str) -> None:
        """See `Claims.release`."""
        if self._holders.get(name) == holder:
            del self._holders[name]

    async def close(self) -> None:
        """Nothing is connected."""


class RedisClaims:
    """Keys ``<prefix>:claim:<name>`` in the Redis or Valkey at `url`; connects at the first claim. What a connection
    that broke was asked for is asked for once more, on a new one."""

    def __init__(self, url: str, *, prefix: str) -> None:
        self._prefix = prefix
        self._client = Redis.from_url(
            url,
            max_connections=4,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 1),
            # With these, redis-py would not look whether a connection that was idle has ended.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._hold = self._client.register_script(HOLD)
        self._release = self._client.register_script(RELEASE)

    async def claim(self, name: str, *, seconds: float) -> bool:
        """See `Claims.claim`."""
        return await self.hold(name, secrets.token_hex(8), seconds=seconds)

    async def hold(self, name: str, holder: str, *, seconds: float) -> bool:
        """See `Claims.hold`."""
        return await self._run(self._hold, name, holder, math.ceil(seconds * 1000)) == 1

    async def release(self, name: str, holder: str) -> None:
        """See `Claims.release`."""
        await self._run(self._release, name, holder)

    async def close(self) -> None:
        """See `Claims.close`."""
        await self._client.aclose()

    async def _run(self, script: AsyncScript, name: str, *arguments: str | int) -> object:
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                return await script([f"{self._prefix}:claim:{name}"], arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise ClaimsUnavailable(f"the store does not answer: {error}") from error
