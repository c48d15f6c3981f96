"""`AsyncPublisher`: for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from stickygw.apps.native.codec import CodecName
from stickygw.publisher.letters import Letters, Parts
from stickygw.publisher.sender import Sender, check_answers, connection_options, unanswered, unreachable


class AsyncPublisher:
    """`Publisher` for coroutines. `timeout` bounds a whole call; one event loop may use it.

    Calls go out one after the other, in the order in which they were awaited first.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        secret: str | bytes | None = None,
        prefix: str = "stickygw",
        codec: CodecName | None = None,
        timeout: float = 1.0,
    ) -> None:
        self._letters = Letters(codec)
        self._sender = Sender(secret, prefix)
        self._timeout = timeout
        self._turn = asyncio.Lock()
        options = connection_options(Retry(NoBackoff(), 0), None)
        self._pool = ConnectionPool.from_url(redis_url, **options)
        self._pool.connection_kwargs.update(options)  # options in the URL would win otherwise

    async def publish(self, room: str | Collection[str], message: Any) -> None:
        """See `Publisher.publish`."""
        await self._send(self._letters.to_rooms(room, message))

    async def send_to_user(self, user: str, message: Any) -> None:
        """See `Publisher.send_to_user`."""
        await self._send(self._letters.to_user(user, message))

    async def send_to_session(self, session: str, message: Any) -> None:
        """See `Publisher.send_to_session`."""
        await self._send(self._letters.to_session(session, message))

    async def disconnect(
        self,
        *,
        session: str | None = None,
        user: str | None = None,
        connection: str | None = None,
        code: int = 1008,
        reason: str = "",
    ) -> None:
        """See `Publisher.disconnect`."""
        await self._send(self._letters.closing(session, user, connection, code, reason))

    async def close(self) -> None:
        """See `Publisher.close`."""
        await self._pool.disconnect()

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, parts: Parts) -> None:
        if not parts:
            return
        is_uncertain = False
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                try:
                    connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
                except (RedisError, OSError) as error:
                    raise unreachable(error) from error
                is_uncertain = True
                refused = await self._exchange(connection, parts)
        except TimeoutError as error:
            why = f"not done within {self._timeout:g} s"
            raise (unanswered(why) if is_uncertain else unreachable(why)) from error
        check_answers(refused, len(parts))

    async def _exchange(self, connection: AbstractConnection, parts: Parts) -> list[ResponseError]:
        refused = []
        try:
            commands = self._sender.commands(parts)  # not before: a number that nothing goes out with is a gap
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    await connection.read_response()
                except ResponseError as error:
                    refused.append(error)
        except (RedisError, OSError) as error:
            await connection.disconnect(nowait=True)
            raise unanswered(error) from error
        except BaseException:  # cancelled, or out of time: the answer that is still to come is no later call's
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)
        return refused
