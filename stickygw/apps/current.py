"""`current`: the application that runs in this process, for code that nobody gives it to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stickygw.errors import OutsideGateway

if TYPE_CHECKING:
    from stickygw.apps.native.app import App

_running: list[App] = []
"""In the order of their starts. A worker has one; tests may have several."""


def current() -> App:
    """The `App` that runs in this process, from its start to its end: yours, or the one that a gateway puts around an
    ASGI application. Of several, the one that started last.

    It is for the event loop that the application runs on. Raises `OutsideGateway` elsewhere: where no gateway runs,
    and in threads, such as those in which FastAPI runs ``def`` endpoints.
    """
    if not _running:
        raise OutsideGateway(
            "no gateway runs in this process, or its modules are still being imported: start the application with "
            "`stickygw run`; in tests, run it in `async with stickygw.testing.AppClient(App(http=…))`"
        )
    app = _running[-1]
    if asyncio._get_running_loop() is not app.runtime.loop:
        raise OutsideGateway(
            "called in a thread, or on an event loop, that is not the gateway's: make the endpoint `async def`, or use "
            "`anyio.from_thread.run`; Starlette's TestClient has a loop of its own, `stickygw.testing.AppClient` not"
        )
    return app


def started(app: App) -> None:
    """`app` runs from now on."""
    _running.append(app)


def ended(app: App) -> None:
    """`app` runs no more; it may not have run."""
    if app in _running:
        _running.remove(app)
