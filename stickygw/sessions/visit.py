"""`Visit`: one request, as its client's session sees it."""

from __future__ import annotations

import contextvars
import logging

from stickygw.errors import SessionEnded, SessionUnavailable
from stickygw.sessions.registry import Sessions, new_session_id
from stickygw.sessions.session import Session
from stickygw.types import SessionId

log = logging.getLogger("stickygw.app")

visiting: contextvars.ContextVar[Visit] = contextvars.ContextVar("visiting")
"""The request that this task serves, or was started by; set where a gateway serves it."""

TOO_LATE = (
    "the client has no session yet, and the head of its answer has left without the cookie of one: open the session, "
    "and write to it, before the answer begins"
)


class Visit:
    """Whose session a request has, which is decided once, and whether its client knows of it.

    `proved`: the session that the client itself has shown to be its own. One is made for each request, and few ask it
    anything: what is not known yet stands in the class.
    """

    session: Session | None = None
    """What was opened last."""
    has_ended = False
    """Whether this request itself has destroyed the session: then its client is to forget it."""
    _id: SessionId | None = None
    _held: Session | None = None  # for all who have opened it: one release is due
    _opens = 0
    _is_answered = False
    _is_told = False

    def __init__(self, proved: SessionId | None, sessions: Sessions) -> None:
        self.proved = proved
        self._sessions = sessions

    @property
    def session_id(self) -> SessionId:
        """The client's, or a new one."""
        id = self._id or self.proved
        if id is None:
            id = self._id = new_session_id()
        return id

    @property
    def is_known(self) -> bool:
        """Whether the client itself has proved `session_id`; not so when it came with one that has ended."""
        return self.proved is not None and self._id in (None, self.proved)

    @property
    def has_session(self) -> bool:
        """Whether the session was opened, and something is stored of it, or will be."""
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
        self._opens += 1  # before any wait: another task of this request may release meanwhile
        try:
            if self._held is not None:
                await self._sessions.freshen(self._held)
            else:
                self._hold(await self._sessions.open(self._id or self.proved))
        except BaseException:
            self.release()
            raise
        assert self.session is not None
        return self.session

    def _hold(self, opened: Session) -> None:
        if self._held is not None:  # another task of this request was quicker
            self._sessions.release(opened)
            return
        # One that has ended is answered with another id: then the client is told of that one.
        self.session = self._held = opened
        self._id = opened.id
        self.has_ended = False

    def release(self) -> None:
        """One who has opened it is done with it."""
        self._opens -= 1
        if not self._opens and self._held is not None:
            held, self._held = self._held, None
            self._sessions.release(held)

    async def freshen(self) -> None:
        """See `Sessions.freshen`."""
        if self._held is not None:
            await self._sessions.freshen(self._held)

    async def keep(self) -> None:
        """Write what has changed, or let it live on. Raises what `Session.save` does, and `RuntimeError` if it is too
        late. That it lives on is not worth an error: the store is asked again at its next use."""
        session = self.session
        assert session is not None
        if self._is_too_late and self.has_session:
            session.clear()
            await session.save()
            raise RuntimeError(TOO_LATE)
        if session.is_dirty:
            await session.save()
            return
        try:
            await session.touch()
        except (SessionUnavailable, SessionEnded) as error:
            log.debug("a session was not touched: %s", error)

    def give_up(self) -> bool:
        """Forget what was written to a session of which nothing is stored; whether that was anything."""
        session = self.session
        if session is None or not session.is_new or not session.is_dirty:
            return False
        session.clear()
        return True

    async def regenerate(self) -> None:
        """Give the client's session a new id, which the answer tells; the old one is worthless at once.

        Who holds the old id sees nothing of the new one: its WebSockets are closed with 4401. Raises
        `SessionUnavailable` and `SessionEnded`, and `RuntimeError` when the head of the answer has left.
        """
        if self._is_answered:
            raise RuntimeError("the head of the answer has left: a new id must be made before, for its cookie tells it")
        old = self._held
        if old is None:
            raise RuntimeError("the request is over: nobody holds its session any more")
        if not self.is_known:
            return  # it was made for this request, and nobody else can know it
        new = await self._sessions.regenerate(old)
        if self._held is not old:  # released meanwhile: nobody will be told of the new one
            self._sessions.release(new)
            return
        self._sessions.release(old)
        self.session = self._held = new
        self._id = new.id

    async def destroy(self) -> None:
        """See `Session.destroy`. The answer, if its head has not left, tells the client to forget its cookie."""
        assert self.session is not None
        await self.session.destroy()
        self.has_ended = True
