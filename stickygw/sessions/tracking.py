"""Word of every session that anybody writes to, from the Redis or Valkey that keeps them.

One connection asks the server to track the keys of all sessions (``CLIENT TRACKING … BCAST``) and to tell of changes,
whoever makes them. With RESP2 that is told to a connection that hears ``__redis__:invalidate``, and here the connection
names itself: of two, the one could be lost without the other, and nobody would see it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable
from random import Random
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError

from stickygw.reconnect import CONNECT_SECONDS, SECOND_LOOK_SECONDS, Backoff, Standing, opened
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

CHANNEL = b"__redis__:invalidate"

PING_SECONDS = 2.0
"""Nothing heard between two pings: the server is dead or stopped. So that is noticed within twice this time."""

MESSAGES_PER_TURN = 64
"""After so many replies the loop turns: what is buffered is read without waiting, and would starve connections."""


class Tracking:
    """Calls `on_invalidated` with the ids of sessions, in use or not, that were written to, ended or forgotten.

    It is called with None when that may be true of any: everything was flushed, or the connection is there, for the
    first time or again. It must neither wait nor raise. `prefix`: of the store's keys.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        prefix: str,
        on_invalidated: Callable[[list[SessionId] | None], None],
        random: Random,
    ) -> None:
        self._connect = connect
        self._prefixes = (f"{prefix}:session:".encode(), f"{prefix}:session-end:".encode())
        self._key = re.compile(rb"(?:%b|%b)\{([0-9a-f]{32})\}" % tuple(map(re.escape, self._prefixes)))
        self._on_invalidated = on_invalidated
        self._backoff = Backoff(random)
        self._heard_at = 0.0
        self._standing = Standing("session tracking", self._session, self._backoff)
        self.armed = asyncio.Event()
        """Set while the server tells of every change, as far as we know."""

    def start(self) -> None:
        """Connect and stay connected, in a task of its own."""
        self._standing.start()

    async def stop(self) -> None:
        """End the task and the connection."""
        await self._standing.stop()

    async def _session(self) -> None:
        async with opened(self._connect) as connection:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._arm(connection)
            self._backoff.succeeded("session tracking")
            self.armed.set()
            try:
                self._on_invalidated(None)  # what was written before, we were not told
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(connection))
                    tasks.create_task(self._ping(connection))
            finally:
                self.armed.clear()

    async def _arm(self, connection: AbstractConnection) -> None:
        id = await _answer(connection, b"CLIENT", b"ID")
        prefixes = [part for prefix in self._prefixes for part in (b"PREFIX", prefix)]
        # Before SUBSCRIBE: in RESP2 a connection that hears channels can ask for little else.
        await _answer(connection, b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", b"%d" % id, b"BCAST", *prefixes)
        await _answer(connection, b"SUBSCRIBE", CHANNEL)

    async def _read(self, connection: AbstractConnection) -> None:
        clock = asyncio.get_running_loop().time
        read = 0
        while True:
            reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            self._heard_at = clock()
            match reply:
                case [b"message", channel, list(keys)] if channel == CHANNEL:
                    self._changed(keys)
                case [b"message", channel, None] if channel == CHANNEL:  # FLUSHALL or FLUSHDB
                    self._on_invalidated(None)
                case [b"pong", _]:
                    pass
                case _:
                    raise ConnectionError(f"a reply that nobody asked for: {str(reply)[:100]}")
            read += 1
            if read % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _changed(self, keys: list[Any]) -> None:
        matches = (self._key.fullmatch(key) for key in keys)
        ids = [SessionId(match[1].decode()) for match in matches if match is not None]
        if ids:
            self._on_invalidated(ids)

    async def _ping(self, connection: AbstractConnection) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            pinged_at = clock()
            async with asyncio.timeout(PING_SECONDS):  # it waits while a stopped server's buffers are full
                await connection.send_packed_command(connection.pack_command(b"PING"), check_health=False)
            await asyncio.sleep(PING_SECONDS)
            if self._heard_at < pinged_at:
                await asyncio.sleep(SECOND_LOOK_SECONDS)
            if self._heard_at < pinged_at:
                raise ConnectionError(f"no answer to a ping for {PING_SECONDS:g} s")


async def _answer(connection: AbstractConnection, *command: bytes) -> Any:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response(timeout=math.inf, disconnect_on_error=False)
