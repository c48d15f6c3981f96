"""A connection on its way to a worker."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stickygw.routing.router import Route
from stickygw.types import HandOverId, Slot
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.primary.taker import Taker


@dataclass(slots=True, eq=False)
class HandOver:
    """A connection whose head is complete, from its route until a worker has taken it.

    `head` are the bytes of its head. `key` is owed to the router when the connection is over. `hops`: how many routes
    came to nothing; `tried`: the slots they led to. `taker` is the worker that it is offered to.
    """

    id: HandOverId
    sock: socket.socket
    head: bytes
    host: str
    port: int
    is_secure: bool
    route: Route
    key: bytes | None
    hops: int = 0
    tried: tuple[Slot, ...] = ()
    taker: Taker | None = None

    def is_untouched(self) -> bool:
        """Whether the head is still to be read: then nobody has served this connection, and another may."""
        try:
            return self.sock.recv(len(self.head), socket.MSG_PEEK | socket.MSG_DONTWAIT) == self.head
        except OSError:  # nothing there (BlockingIOError), or reset
            return False

    def offer(self) -> Offer:
        """The message that goes with the socket."""
        claim = self.route.claim
        return Offer(
            self.id,
            claim.session if claim is not None else None,
            claim.issued if claim is not None else 0,
            self.route.cookie_slot,
            self.host,
            self.port,
            self.is_secure,
            self.route.reason,
            self.route.key,
        )
