"""How many messages WebSockets have carried, and how many wait: counted by each, summed up when asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Messages from and to clients so far, and those that wait now: for a handler, or for a client to take them."""

    received: int = 0
    sent: int = 0
    queued: int = 0
