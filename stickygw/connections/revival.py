"""A WebSocket goes on where another process froze it: `revive`."""

from __future__ import annotations

import asyncio

from stickygw.connections.frozen import FrozenWebSocket
from stickygw.connections.handshake import negotiated_before
from stickygw.connections.receiving import MessageReceiver
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.observability.counters import Counters


def revive(
    frozen: FrozenWebSocket,
    transport: SocketTransport,
    receiver: MessageReceiver,
    *,
    loop: asyncio.AbstractEventLoop,
    max_message: int,
    max_outbox: int,
    counters: Counters,
) -> WebSocket:
    """The WebSocket that `frozen` was, frozen still, on a `transport` of the passed socket that nobody has used.

    Nothing touches the socket before ``start()``: then what was unwritten is written, and after it what was sent since;
    what was undecoded is decoded, and after it what the socket has. A bound that is smaller here than it was there
    holds from then on, for the message that is coming too (1009).
    """
    transport.restore(frozen.transport)
    websocket = WebSocket(
        transport,
        negotiated_before(client_window_bits=frozen.client_window_bits, max_message=max_message),
        receiver,
        loop=loop,
        max_message=max_message,
        max_outbox=max_outbox,
        counters=counters,
    )
    websocket.restore(frozen)
    return websocket
