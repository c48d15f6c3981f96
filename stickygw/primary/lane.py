"""One slot as its hand-overs see it: what waits for it, what is on its way, what its worker has."""

from __future__ import annotations

import socket
from collections import OrderedDict
from dataclasses import dataclass

from stickygw.ipc.link import Link
from stickygw.routing.router import Route, SlotView
from stickygw.types import HandOverId, Slot
from stickygw.wire.link import Offer


@dataclass(slots=True, eq=False)
class HandOver:
    """A connection whose head is complete, from its route until a worker has taken it.

    `head` are the bytes of its head. `key` is owed to the router when the connection is over. `hops`: how many routes
    came to nothing; `tried`: the slots they led to.
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
            self.route.sets_cookie,
            self.host,
            self.port,
            self.is_secure,
            self.route.reason,
        )


class Lane:
    """The state of one slot. `link` is None while it has no worker that has started."""

    __slots__ = ("in_flight", "is_flush_due", "link", "max_connections", "overdue", "queue", "slot", "taken")

    def __init__(self, slot: Slot, *, max_connections: int) -> None:
        self.slot = slot
        self.max_connections = max_connections
        self.link: Link | None = None
        self.is_flush_due = False
        """Whether a call that offers what is queued is on its way."""
        self.queue: OrderedDict[HandOverId, HandOver] = OrderedDict()
        """Not offered yet: the worker restarts or stalls, or its link is full."""
        self.in_flight: dict[HandOverId, HandOver] = {}
        """Offered, and neither taken nor declined. The kernel bounds them: a link holds some 278 descriptors that are
        unread (measured), and a worker acknowledges what it has read before it waits again. An answer ends the wait,
        or the worker's death, which comes to a worker that gives none.
        """
        self.overdue: set[HandOverId] = set()
        """Those in flight that wait too long for an answer: while there are any, the worker stalls."""
        self.taken: dict[HandOverId, bytes | None] = {}
        """The worker's, each with its key."""

    @property
    def connections(self) -> int:
        """Those with the worker, and those on their way to it."""
        return len(self.queue) + len(self.in_flight) + len(self.taken)

    @property
    def is_full(self) -> bool:
        """Whether it is at its limit."""
        return self.connections >= self.max_connections

    @property
    def is_ready(self) -> bool:
        """Whether its worker takes connections now."""
        return self.link is not None and not self.overdue

    def view(self) -> SlotView:
        """What the router is to see of it now."""
        connections = self.connections
        return SlotView(self.slot, self.is_ready, connections >= self.max_connections, connections)

    def send(self, hand_over: HandOver) -> bool:
        """Offer it to the worker; False: there is none, it stalls, or its link is full."""
        if self.link is None or self.overdue or not self.link.send(hand_over.offer(), hand_over.sock.fileno()):
            return False
        self.in_flight[hand_over.id] = hand_over
        return True
