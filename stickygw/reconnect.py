"""Keeping a connection to the store alive for ever: the loop that all of a worker's standing connections share, and
its pauses."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from time import monotonic
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from stickygw.config.redacted import line_of

log = logging.getLogger("stickygw.reconnect")

CONNECT_SECONDS = 2.0
"""A connection that is not usable after so long is given up: a stopped server's kernel accepts, but nobody
answers."""

SECOND_LOOK_SECONDS = 0.1
"""After our own loop was blocked an answer may be waiting unread when its time is over (uvloop looks at timers before
sockets then): it gets so long to be read."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0

STAND_SECONDS = 2.0
"""After so long the next pause is a first one again."""


def connections(url: str) -> Callable[[], AbstractConnection]:
    """A maker of bare connections to `url`.

    RESP2, because published messages then come as ordinary replies; never retried, because a PUBLISH that was
    perhaps sent must not be sent again; without time limits of their own, because ours are around them.
    """
    options = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "health_check_interval": 0,
        "decode_responses": False,
    }
    pool = ConnectionPool.from_url(url, **options)
    pool.connection_kwargs.update(options)  # options in the URL would win otherwise
    return pool.make_connection


@asynccontextmanager
async def opened(connect: Callable[[], AbstractConnection]) -> AsyncIterator[AbstractConnection]:
    """A connection that the server has answered on, closed afterwards. It never reconnects by itself."""
    connection = connect()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect()  # type: ignore[no-untyped-call]
        yield connection
    finally:
        await connection.disconnect(nowait=True)


class Backoff:
    """Pauses with full jitter under a ceiling that doubles, so that many workers don't come back in step.

    A connection that ends within `STAND_SECONDS` was no success: a server that takes connections and drops them is not
    asked without end. `clock` gives monotonic seconds.
    """

    def __init__(self, random: Random, clock: Callable[[], float] = monotonic) -> None:
        self._random = random
        self._clock = clock
        self._failures = 0
        self._works_since: float | None = None

    def succeeded(self, name: str) -> None:
        """The connection called `name` works. News only if one before it failed."""
        log.log(logging.INFO if self._failures else logging.DEBUG, "%s: connected", name)
        self._works_since = self._clock()

    def failed(self) -> bool:
        """The connection is over, or there was none. Whether that is the first time since one that stood."""
        works_since, self._works_since = self._works_since, None
        if works_since is not None and self._clock() - works_since >= STAND_SECONDS:
            self._failures = 0
        return not self._failures

    def next_seconds(self) -> float:
        """The next pause, after `failed`."""
        ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 16))
        self._failures += 1
        return self._random.uniform(0, ceiling)


class Standing:
    """A connection that stands between `start` and `stop`: `keep_alive`, in a task of its own."""

    def __init__(self, name: str, session: Callable[[], Coroutine[Any, Any, None]], backoff: Backoff) -> None:
        self._name = name
        self._session = session
        self._backoff = backoff
        self._task: asyncio.Task[None] | None = None

    @property
    def is_started(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._task is not None

    def start(self) -> None:
        """Connect and stay connected."""
        self._task = asyncio.create_task(keep_alive(self._name, self._session, self._backoff), name=self._name)

    async def stop(self) -> None:
        """End the task and the connection. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None


async def keep_alive(name: str, session: Callable[[], Coroutine[Any, Any, None]], backoff: Backoff) -> None:
    """Run `session`, one connection's life, again and again until cancelled.

    `session` calls `backoff.succeeded` once its connection is useful. Of a row of failures the first is logged as a
    warning, and the first that will not pass by itself. A defect of ours is logged with its traceback and ends as
    little as a lost connection does.
    """
    is_refusal_told = False
    while True:
        try:
            # A task of its own, so that our count of cancellations is ours: until Python 3.13 a TaskGroup whose child
            # fails leaves one behind in the task that it is in.
            await asyncio.create_task(session())
        except* (RedisError, OSError) as errors:
            # A server whose password was changed ends connections first, and says why only to the next ones.
            is_first, is_refusal = backoff.failed(), any(map(_is_refusal, errors.exceptions))
            is_news = is_first or (is_refusal and not is_refusal_told)
            is_refusal_told = is_refusal or (is_refusal_told and not is_first)
            # In words of their own: redis-py's reprs say no more than "network:ConnectionError".
            reason = "; ".join(map(line_of, errors.exceptions))
            log.log(logging.WARNING if is_news else logging.DEBUG, "%s: not connected: %s", name, reason)
        except* Exception:
            backoff.failed()
            log.exception("%s: a defect ended it; it is started again", name)
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # A TaskGroup raises its children's errors in the place of a cancellation that meets them.
            raise asyncio.CancelledError
        await asyncio.sleep(backoff.next_seconds())


def _is_refusal(error: Exception) -> bool:
    """Whether the server was there, and it does not accept us, or we not it. redis-py wraps what says so."""
    refusals = (AuthenticationError, ResponseError, ssl.SSLCertVerificationError)
    return any(isinstance(one, refusals) for one in (error, error.__cause__, error.__context__))
