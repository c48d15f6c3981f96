"""`session`: the session of the client whose request an ASGI application answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stickygw.errors import OutsideGateway
from stickygw.sessions.request_session import RequestSession
from stickygw.sessions.visit import visiting

log = logging.getLogger("stickygw.app")


@asynccontextmanager
async def session() -> AsyncIterator[RequestSession]:
    """The session of the client whose request, HTTP or WebSocket, this task serves; all its requests share it.

    What changed is written at the end of the block, also after an error, and before with ``await session.save()``. A
    client without one is told of its new session by a cookie in the answer, if something was written to it before the
    answer begins; of a WebSocket, always. Raises `SessionUnavailable`; `SessionEnded` when it ended before it was
    written; `RuntimeError` when the answer has begun and the client was not told; `OutsideGateway` where no request is
    served.
    """
    visit = visiting.get(None)
    if visit is None:
        raise OutsideGateway(
            "this task serves no request of a gateway: a session is there in the handlers of an application that "
            "`stickygw run` serves; in tests, `stickygw.testing.AppClient`"
        )
    opened = RequestSession(visit)
    await opened.load()
    try:
        yield opened
    except BaseException:
        await _keep_after_error(opened)
        raise
    else:
        await opened.keep()
    finally:
        opened.release()


async def _keep_after_error(opened: RequestSession) -> None:
    try:
        await opened.keep()
    except Exception:  # the error on its way is what the application has to see
        log.exception("a session was not written, behind an error")
