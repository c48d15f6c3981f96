"""`Visit`: one request of an ASGI application, as its session sees it."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING

from stickygw.sessions.registry import Sessions, new_session_id
from stickygw.sessions.session import Session
from stickygw.types import SessionId
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.apps.asgi.connection import AsgiConnection

log = logging.getLogger("stickygw.app")

serving: contextvars.ContextVar[AsgiConnection] = contextvars.ContextVar("serving")
"""The connection whose request this task serves."""

visiting: contextvars.ContextVar[Visit] = contextvars.ContextVar("visiting")
"""The request that this task serves, or was started by."""

TOO_LATE = (
    "the client has no session yet, and the head of its answer has left without the cookie of one: open the session, "
    "and write to it, before the answer begins"
)


class Visit:
    """Whose session a request has, which is decided once, and whether its client knows of it.

    One is made for each request, and few ask it anything: what is not known yet stands in the class.
    """

    session: Session | None = None
    """What the application has opened."""
    _id: SessionId | None = None
    _is_answered = False
    _is_told = False

    def __init__(self, offer: Offer, sessions: Sessions) -> None:
        self.offer = offer
        self._sessions = sessions

    @property
    def session_id(self) -> SessionId:
        """The client's, or a new one."""
        id = self._id or self.offer.session
        if id is None:
            id = self._id = new_session_id()
        return id

    @property
    def is_known(self) -> bool:
        """Whether the client itself has proved `session_id`; not so when it came with one that has ended."""
        return self.offer.session is not None and self._id in (None, self.offer.session)

    @property
    def has_session(self) -> bool:
        """Whether the application has opened the session, and it holds something."""
        session = self.session
        return session is not None and (not session.is_new or session.is_dirty)

    def answered(self, *, with_cookie: bool) -> None:
        """The head of the answer leaves now, `with_cookie` of ours or without."""
        self._is_answered = True
        self._is_told = with_cookie
        if self.session is not None and self._is_too_late and self.has_session:
            log.warning("a new session is lost for its client: a response that is marked public carries no cookie")

    @property
    def _is_too_late(self) -> bool:
        """Whether the client knows of no session, and nothing will tell it."""
        return self._is_answered and not self._is_told and not self.is_known

    async def open(self) -> Session:
        """The session, for which a `release` is due. Raises `SessionUnavailable`; `RuntimeError` if it is too late."""
        if self._is_too_late:
            raise RuntimeError(TOO_LATE)
        self.session = session = await self._sessions.open(self._id or self.offer.session)
        self._id = session.id  # a new one is made without waiting: no other task of the request has been here meanwhile
        return session

    async def keep(self, session: Session) -> None:
        """Write what has changed. Raises what `Session.flush` does, and `RuntimeError` if it is too late."""
        if self._is_too_late and self.has_session:
            session.clear()
            await session.flush()
            raise RuntimeError(TOO_LATE)
        await session.flush()

    def release(self, session: Session) -> None:
        """It is not used any more."""
        self._sessions.release(session)
