"""What the connections of an ASGI application share: uvicorn's configuration, the lifespan, one sweep for deadlines."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from email.utils import formatdate
from time import monotonic
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from stickygw.apps.arrival import Arrival
from stickygw.apps.asgi.connection import AsgiConnection
from stickygw.apps.asgi.further import FurtherOffers
from stickygw.apps.asgi.http_connection import HttpConnection
from stickygw.apps.asgi.lifespan import Lifespan
from stickygw.apps.asgi.protocols import HttpProtocol, WebSocketProtocol, check_uvicorn
from stickygw.apps.asgi.websocket_connection import WebSocketConnection
from stickygw.routing.request_head import Head
from stickygw.sessions.visit import Visit
from stickygw.types import ConnectionId
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.apps.native.runtime import Runtime

log = logging.getLogger("stickygw.connections")

SWEEP_SECONDS = 1.0
"""How often all connections are looked at. Deadlines are kept so exactly."""


class AsgiHost:
    """Serves connections with one ASGI application, in the worker of `runtime`, which counts and closes them."""

    serves: Callable[[Head], bool]
    give: Callable[[Arrival], None]
    cookie_for: Callable[[Offer, Visit, Head, int], str | None]

    def __init__(self, app: Any, runtime: Runtime) -> None:
        check_uvicorn()
        self.loop = runtime.loop
        self.settings = runtime.settings
        self.counters = runtime.counters
        self.sessions = runtime.sessions
        self.hub = runtime.hub
        self.further = FurtherOffers(runtime.settings, runtime.cookie_keys, runtime.identity)
        self.context = contextvars.copy_context()
        """What the tasks of requests start with."""
        self.is_ending = False
        """Whether each answer is the last of its connection."""
        self._runtime = runtime
        self._lifespan = Lifespan(app)
        self._config = _config(app, runtime)
        self._state = ServerState()
        self._state.tasks = runtime.tasks
        self._connections: set[AsgiConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._swept_at = 0.0

    def connect_to(
        self,
        *,
        serves: Callable[[Head], bool],
        give: Callable[[Arrival], None],
        cookie_for: Callable[[Offer, Visit, Head, int], str | None],
    ) -> None:
        """Say what the endpoint decides.

        `serves` says whether a further request is for this application; the connection of one that is not is left to
        `give`, from that request on. `cookie_for` gives the gateway's cookie for an answer with a status, or None.
        """
        self.serves = serves
        self.give = give
        self.cookie_for = cookie_for

    # Life

    async def start(self) -> None:
        """Start the application. Raises `stickygw.errors.TargetError`."""
        # An application's logging.config disables the loggers that it does not know of. What uvicorn says at "info" are
        # access lines, with queries in them, which may hold credentials.
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).disabled = False
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        await self._lifespan.start()

    async def stop(self) -> None:
        """Let the application end. For one that does not, the caller has to bound this wait."""
        if self._timer is not None:
            self._timer.cancel()
        await self._lifespan.stop()

    def end(self) -> None:
        """Let requests finish, and close their connections behind them; quiet ones now."""
        self.is_ending = True
        for connection in tuple(self._connections):
            if isinstance(connection, HttpConnection):
                connection.send_away(1012, "", within=0.0)

    def refuse_openings(self) -> None:
        """Refuse the WebSockets that the application has not accepted yet."""
        for connection in tuple(self._connections):
            if isinstance(connection, WebSocketConnection):
                connection.refuse_opening()

    # Connections

    def serve(self, arrival: Arrival, id: ConnectionId, on_ended: Callable[..., None]) -> None:
        """Serve a connection. `on_ended`: see `AsgiConnection`; the arrival's own is the caller's to call."""
        kind = WebSocketConnection if arrival.head.is_websocket else HttpConnection
        connection = kind(self, arrival, id, on_ended)
        self._connections.add(connection)
        self._runtime.opened(connection)
        if self._timer is None:
            self._sweep()
        connection.begin()

    def new_http_protocol(self, transport: asyncio.Transport, on_answered: Callable[[], None]) -> HttpProtocol:
        """A protocol for one connection."""
        return HttpProtocol(self._config, self._state, self._lifespan.state, transport, on_answered)

    def new_websocket_protocol(self) -> WebSocketProtocol:
        """A protocol for one WebSocket."""
        return WebSocketProtocol(self._config, self._state, self._lifespan.state)

    def ended(self, connection: AsgiConnection) -> None:
        """`connection` is over."""
        self._connections.discard(connection)
        self._runtime.ended(connection)

    def _sweep(self) -> None:
        self._timer = self.loop.call_later(SWEEP_SECONDS, self._sweep) if self._connections else None
        # RFC 9110, 6.6.1: an origin server with a clock says when it answered.
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        now = monotonic()
        is_late = now - self._swept_at > 2 * SWEEP_SECONDS
        self._swept_at = now
        if is_late:
            # The loop was blocked: what clients sent meanwhile lies unread. Judge nobody by that.
            return
        for connection in tuple(self._connections):
            try:
                connection.look(now)
            except Exception:
                log.exception("looking at a connection failed; it ends")
                connection.abort()


def _config(app: Any, runtime: Runtime) -> Config:
    settings = runtime.settings
    config = Config(
        _never_called,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",  # ours keeps what a failing application has raised
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the primary has decided whose word counts
        server_header=False,
        root_path=settings.root_path,
        ws_max_size=settings.max_message,
        ws_ping_interval=settings.ping_interval,
        ws_ping_timeout=settings.ping_timeout,
        ws_per_message_deflate=settings.compression,
    )
    config.load()
    config.loaded_app = app  # not given to `load`: it calls what it gets, to see whether that is a factory
    return config


async def _never_called(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("a placeholder")
