"""`Publisher`: for code that waits by blocking its thread."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from stickygw.apps.native.codec import CodecName
from stickygw.publisher.letters import Letters, Parts
from stickygw.publisher.sender import Sender, check_answers, connection_options, unanswered, unreachable


class Publisher:
    """Publishes to the gateways that share the store at `redis_url`, their ``redis.prefix`` and their secret.

    `secret` is the gateways' ``secret``, of which the first signs: a `str` is read as ``STICKYGW_SECRET`` is, `bytes`
    are one secret. None: nothing is signed, which only gateways with ``redis.sign = false`` take. `codec` is that of
    the gateways' `App`: None takes str and bytes, "json" and "msgpack" what they can write. `timeout`: seconds that a
    call waits for its turn, for a connection, and for each answer of the store.

    Threads may share one: their calls go out one after the other, so that the members of a room get them in that order.
    A process that is forked off goes on with numbers and a connection of its own. It connects when it is first used,
    and anew after an error.

    Every method that sends raises `PublishError` if the store does not take it, or not in every room; `RoomNameError`
    for what no room or user can be called, `ValueError` for what is no id, and `ValueError` or `TypeError` for what the
    codec cannot write; these before anything is sent. Raises `ValueError` for a URL that is none, a secret of under 32
    bytes, a prefix that no gateway can have, or another codec.
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
        options = connection_options(Retry(NoBackoff(), 0), timeout)
        self._pool = ConnectionPool.from_url(redis_url, **options)
        self._pool.connection_kwargs.update(options)  # options in the URL would win otherwise

    def publish(self, room: str | Collection[str], message: Any) -> None:
        """Send `message` to every member of `room`, or of several; a member of two of them gets it once."""
        self._send(self._letters.to_rooms(room, message))

    def send_to_user(self, user: str, message: Any) -> None:
        """Send `message` to every connection that is identified as `user`."""
        self._send(self._letters.to_user(user, message))

    def send_to_session(self, session: str, message: Any) -> None:
        """Send `message` to every WebSocket of the session with that id."""
        self._send(self._letters.to_session(session, message))

    def disconnect(
        self,
        *,
        session: str | None = None,
        user: str | None = None,
        connection: str | None = None,
        code: int = 1008,
        reason: str = "",
    ) -> None:
        """Close all WebSockets of a session or a user, or one connection by its id.

        Raises `ValueError` unless one of the three is given, and for a code or reason that no close frame may carry.
        """
        self._send(self._letters.closing(session, user, connection, code, reason))

    def close(self) -> None:
        """Close the connection. Used again, it opens another. Idempotent."""
        self._pool.disconnect()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, parts: Parts) -> None:
        if not parts:
            return
        lock = self._sender.lock
        if not lock.acquire(timeout=self._timeout):
            raise unreachable(f"other threads still publish after {self._timeout:g} s")
        try:
            try:
                connection = self._pool.get_connection()
            except (RedisError, OSError) as error:
                raise unreachable(error) from error
            refused = self._exchange(connection, parts)
        finally:
            lock.release()
        check_answers(refused, len(parts))

    def _exchange(self, connection: Any, parts: Parts) -> list[ResponseError]:
        refused = []
        try:
            commands = self._sender.commands(parts)  # not before: a number that nothing goes out with is a gap
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    connection.read_response()
                except ResponseError as error:
                    refused.append(error)
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise unanswered(error) from error
        except BaseException:  # an interrupt: the answer that is still to come is no later call's
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        return refused
