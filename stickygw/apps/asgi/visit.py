"""`Visit`: one request of an ASGI application, as its session sees it."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from stickygw.sessions.registry import Sessions, new_session_id
from stickygw.sessions.session import Session
from stickygw.types import SessionId
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.apps.asgi.connection import AsgiConnection

log = logging.getLogger("stickygw.app")

serving: contextvars.ContextVar[AsgiConnection] = contextvars.ContextVar("serving")
"""The connection of the request that this task serves."""

visiting: contextvars.ContextVar[Visit] = contextvars.ContextVar("visiting")
"""The request that this task serves, or was started by."""

TOO_LATE = (
    "the client has no session yet, and the head of its answer has left without the cookie of one: open the session, "
    "and write to it, before the answer begins"
)


class Visit:
    """Whose session a request has, which is decided once, and whether its client knows of it."""

    __slots__ = ("_id", "_is_answered", "_is_told", "_session", "_sessions", "offer")

    def __init__(self, offer: Offer, sessions: Sessions) -> None:
        self.offer = offer
        self._sessions = sessions
        self._id = offer.session
        self._is_told = offer.session is not None
        self._is_answered = False
        self._session: Session | None = None

    @property
    def session_id(self) -> SessionId:
        """The client's, or a new one."""
        if self._id is None:
            self._id = new_session_id()
        return self._id

    @property
    def has_session(self) -> bool:
        """Whether the application has opened the session, and it holds something."""
        session = self._session
        return session is not None and (not session.is_new or session.is_dirty)

    def answered(self, *, with_cookie: bool) -> None:
        """The head of the answer leaves now, `with_cookie` of ours or without."""
        self._is_answered = True
        self._is_told = self._is_told or with_cookie
        if not self._is_told and self.has_session:
            log.warning("a new session is lost for its client: a response that is marked public carries no cookie")

    async def open(self) -> Session:
        """The session, for which a `release` is due. Raises `SessionUnavailable`; `RuntimeError` if it is too late."""
        if self._is_answered and not self._is_told:
            raise RuntimeError(TOO_LATE)
        self._session = session = await self._sessions.open(self._id)
        self._id = session.id  # a new one is made without waiting: no other task of the request has been here meanwhile
        return session

    async def keep(self, session: Session) -> None:
        """Write what has changed. Raises what `Session.flush` does, and `RuntimeError` if it is too late."""
        if self._is_answered and not self._is_told and session.is_dirty:
            session.clear()
            await session.flush()
            raise RuntimeError(TOO_LATE)
        await session.flush()

    def release(self, session: Session) -> None:
        """It is not used any more."""
        self._sessions.release(session)


class Visited:
    """`app`, with a `Visit` in the context of each of its requests."""

    def __init__(self, app: Any, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        connection = serving.get()
        connection.visit = visit = Visit(connection.offer, self._sessions)
        visiting.set(visit)
        result: Awaitable[None] = self._app(scope, receive, send)
        return result
