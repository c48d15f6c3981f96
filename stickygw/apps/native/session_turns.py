"""What a connection's turns do with its session: see what others wrote before a handler, save behind it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stickygw.errors import SessionEnded, SessionUnavailable, SessionValueError
from stickygw.observability.formats import fields
from stickygw.sessions.holders import SESSION_ENDED
from stickygw.sessions.session import Session

if TYPE_CHECKING:
    from stickygw.apps.native.connection import Connection
    from stickygw.apps.native.runtime import Runtime

log = logging.getLogger("stickygw.app")


def has_work(session: Session) -> bool:
    """Whether `keep_session` has something to do."""
    return session.is_dirty or session.is_touch_due


async def freshen_session(runtime: Runtime, connection: Connection) -> bool:
    """Let what runs next see what others wrote to the session. False: it has ended, and so does the connection."""
    if connection.session.is_stale:
        try:
            await runtime.sessions.freshen(connection.session)
        except SessionEnded:
            connection.close(*SESSION_ENDED)
            return False
    return True


async def keep_session(runtime: Runtime, connection: Connection) -> None:
    """Write what changed, or extend the session's life. What cannot be written now is tried again next time."""
    try:
        await connection.session.flush()
    except SessionUnavailable as error:
        runtime.counters.add("session_writes_failed")
        log.error("its session was not written: %s", error, extra=fields(connection=connection.id))
    except SessionEnded as error:
        end_with_session(connection, error)
    except SessionValueError as error:  # a list or dict in it was changed to hold what it cannot keep
        runtime.counters.add("handler_errors", type(error).__name__)
        log.error("its session was not written: %s", error, extra=fields(connection=connection.id))
        connection.close(1011, "internal error")


def end_with_session(connection: Connection, error: SessionEnded) -> None:
    """Its session takes no more writes. Those that come behind the close are not worth a warning each."""
    log.log(
        logging.WARNING if connection.is_open else logging.DEBUG,
        "its session was not written: %s",
        error,
        extra=fields(connection=connection.id),
    )
    connection.close(*SESSION_ENDED)
