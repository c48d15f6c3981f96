"""The client of one request, as the middleware knows it: through a gateway, or by its own cookie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from stickygw.middleware.cookies import Cookies, Fields, with_cookie
from stickygw.sessions.holders import Holder
from stickygw.sessions.registry import Sessions
from stickygw.sessions.request_session import RequestSession
from stickygw.sessions.visit import Visit


class Client(Protocol):
    """Whose `session` it is, who tells it of a new one, and of the end."""

    session: RequestSession

    def told(self, fields: Fields, *, is_opening: bool) -> Fields:
        """`fields`, of the answer whose head leaves now, with what the client has to know of its session.

        `is_opening`: the answer opens a WebSocket."""

    def watch(self, close: Callable[[], None]) -> bool:
        """Call `close`, once, when the session of the WebSocket that was opened has ended. False: somebody else ends
        the WebSocket then."""

    def leave(self) -> None:
        """The request is over."""


class GatewayClient:
    """A `Client` of the gateway that serves the request: it sets cookies and closes WebSockets itself."""

    def __init__(self, visit: Visit) -> None:
        self.session = RequestSession(visit)

    def told(self, fields: Fields, *, is_opening: bool) -> Fields:
        return fields

    def watch(self, close: Callable[[], None]) -> bool:
        return False  # the gateway does

    def leave(self) -> None:
        pass  # the gateway knows


class CookieClient:
    """A `Client` that is known by the cookies in its request, and by nothing else."""

    def __init__(self, scope: dict[str, Any], cookies: Cookies, sessions: Sessions) -> None:
        self._scope = scope
        self._cookies = cookies
        self._sessions = sessions
        self._claim = cookies.proved(scope)
        self._visit = Visit(None if self._claim is None else self._claim.session, sessions)
        self._holder: Holder | None = None
        self.session = RequestSession(self._visit)

    def told(self, fields: Fields, *, is_opening: bool) -> Fields:
        cookie = self._cookies.due(self._scope, self._claim, self._visit, is_opening=is_opening)
        signed = None if cookie is None else with_cookie(fields, cookie, is_opening=is_opening)
        self._visit.answered(with_cookie=signed is not None)
        return fields if signed is None else signed

    def watch(self, close: Callable[[], None]) -> bool:
        issued = self._claim.issued if self._claim is not None and self._visit.is_known else 0
        self._holder = self._sessions.watch(self._visit.session_id, close, issued=issued)
        return True

    def leave(self) -> None:
        if self._holder is not None:
            self._sessions.unwatch(self._holder)
