"""One timer for all WebSockets of a worker: pings the quiet, ends the dead and the ones that never read."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from stickygw.connections.websocket import WebSocket
from stickygw.observability.counters import Counters

log = logging.getLogger("stickygw.connections")

SWEEP_SECONDS = 1.0


class KeepAlive:
    """Looks at every watched WebSocket once in `SWEEP_SECONDS`.

    Quiet for `ping_interval` seconds: a ping. No byte for `ping_timeout` seconds after it: the end, without a close
    frame. Bytes that wait for the client for more than `outbox_seconds`: closed with 1013; where its rooms drop what
    it does not take, only after the time in which a ping would have been missed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        ping_interval: float,
        ping_timeout: float,
        outbox_seconds: float,
        counters: Counters,
    ) -> None:
        self._loop = loop
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._outbox_seconds = outbox_seconds
        self._spared_seconds = max(outbox_seconds, ping_interval + ping_timeout)
        self._counters = counters
        self._watched: set[WebSocket] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._swept_at = 0.0

    def watch(self, websocket: WebSocket) -> None:
        """Look after `websocket` until `forget`."""
        self._watched.add(websocket)
        if self._timer is None:
            self._swept_at = monotonic()
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def forget(self, websocket: WebSocket) -> None:
        """Look after it no more."""
        self._watched.discard(websocket)

    def stop(self) -> None:
        """No more sweeps."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._watched else None
        now = monotonic()
        is_late = now - self._swept_at > 2 * SWEEP_SECONDS
        self._swept_at = now
        if is_late:
            # The loop was blocked: what clients sent meanwhile, pongs too, lies unread. Judge nobody by that.
            return
        for websocket in tuple(self._watched):
            self._look_at(websocket, now)

    def _look_at(self, websocket: WebSocket, now: float) -> None:
        blocked_since, pinged_at = websocket.blocked_since, websocket.pinged_at
        if blocked_since is not None and now - blocked_since > (
            self._spared_seconds if websocket.is_spared else self._outbox_seconds
        ):
            websocket.close_slow()
        elif pinged_at is not None:
            # While we do not read, a pong may lie unread: then its absence says nothing.
            if websocket.is_reading and now - pinged_at > self._ping_timeout:
                self._counters.add("connections_closed", "ping_timeout")
                websocket.abort()
        elif now - websocket.heard_at > self._ping_interval:
            websocket.ping()
