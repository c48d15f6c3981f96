"""The way of a new connection through the primary: accepted, looked at until its head is complete, routed, handed over.

This is the hot path. It has no task and no coroutine: callbacks, and one object a connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

from stickygw.observability.counters import Counters
from stickygw.primary.arrivals import Arrivals
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.listener import Listener
from stickygw.primary.opening import Gone, Opening
from stickygw.primary.refusal import Refusals, TurnedAway
from stickygw.routing.forwarded import TrustedProxies
from stickygw.routing.request_head import NEED_MORE, Head, Refusal
from stickygw.routing.router import Router

log = logging.getLogger("stickygw.intake")


class Intake:
    """Owns each accepted connection until it is refused, closed or placed."""

    def __init__(
        self,
        *,
        router: Router,
        trusted: TrustedProxies,
        hand_overs: HandOvers,
        refusals: Refusals,
        counters: Counters,
        header_timeout: float,
        max_pending: int,
        max_pending_per_address: int,
    ) -> None:
        self._router = router
        self._trusted = trusted
        self._hand_overs = hand_overs
        self._refusals = refusals
        self._counters = counters
        self._clock = asyncio.get_running_loop().time
        self._arrivals: Arrivals[Opening] = Arrivals(
            on_arrival=self._arrived,
            on_timeout=self._timed_out,
            header_timeout=header_timeout,
            max_pending=max_pending,
            max_pending_per_address=max_pending_per_address,
            counters=counters,
        )

    @property
    def pending(self) -> int:
        """How many connections have no complete head yet."""
        return len(self._arrivals)

    def accepted(self, sock: socket.socket, address: Any, listener: Listener) -> None:
        """A client has connected to `listener` from `address`."""
        host, port = ("", 0) if listener.path else address[:2]
        opening = Opening(sock, host=host, port=port, is_trusted=self._trusted.trusts(host))
        verdict = opening.look()
        if verdict is not NEED_MORE:
            self._settle(opening, verdict)
            return
        why_not = self._arrivals.wait(opening)
        if why_not is not None:
            self._refuse_unfinished(opening, 503, why_not, "Too many connections have sent no request yet.")

    def close(self) -> None:
        """Turn away those whose head is not complete, and take no more. Idempotent."""
        for opening in self._arrivals.close():
            self._refuse_unfinished(opening, 503, TurnedAway.STOPPING, "The gateway stops.")

    def _arrived(self, opening: Opening, is_finished: bool) -> None:
        verdict = opening.look()
        if verdict is not NEED_MORE:
            self._arrivals.forget(opening)
            self._settle(opening, verdict)
        elif is_finished:
            self._arrivals.forget(opening)
            self._refuse_unfinished(opening, 400, TurnedAway.HEAD_CUT, "The request head ends half way.")

    def _timed_out(self, opening: Opening) -> None:
        self._refuse_unfinished(opening, 408, TurnedAway.HEADER_TIMEOUT, "The request head was not complete in time.")

    def _refuse_unfinished(self, opening: Opening, status: int, reason: TurnedAway, message: str) -> None:
        # Who never sent a byte asked for nothing: a browser opens connections ahead of its requests, and would take
        # an answer for that of its next one.
        self._refusals.refuse(opening.sock, status if opening.data else 0, reason, message)

    def _settle(self, opening: Opening, verdict: Head | Refusal | Gone) -> None:
        if isinstance(verdict, Head):
            self._route(opening, verdict)
        elif isinstance(verdict, Refusal):
            self._refusals.refuse(opening.sock, verdict.status, verdict.reason, verdict.message, verdict.fields)
        else:
            self._counters.add("gone")
            opening.sock.close()

    def _route(self, opening: Opening, head: Head) -> None:
        host, is_secure = self._trusted.client_of(head, opening.host)
        # X-Forwarded-For tells no port.
        port = opening.port if host == opening.host else 0
        hand_overs = self._hand_overs
        route = self._router.route(head, host, hand_overs.views, now=self._clock(), wall=time.time())
        self._counters.add("routes", route.reason)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("route client=%s slot=%d reason=%s", host, route.slot, route.reason)
        hand_overs.place(opening, head.size, route, host=host, port=port, is_secure=is_secure)
