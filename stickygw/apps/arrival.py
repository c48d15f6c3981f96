"""A connection that comes to the application: what the primary said, what was read, and the socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stickygw.connections.transport import SocketTransport
from stickygw.routing.request_head import Head
from stickygw.wire.link import Offer


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection whose head was read: `rest` are the bytes behind it. `on_ended` is called once, when it is over."""

    offer: Offer
    head: Head
    rest: bytes
    transport: SocketTransport
    on_ended: Callable[[], None]
