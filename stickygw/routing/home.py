"""Where those belong whose slot is gone or drained: what the router and a worker that gives up its slot agree on.

The worker gives each connection to the slot where its client would be led if it came again, so that all connections of
a key, and all tabs of a session, meet there. Loads have no say: the two would see different ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from stickygw.routing.rendezvous import owner
from stickygw.types import SessionId, Slot


def home_of_key(key: bytes, slots: Iterable[Slot]) -> Slot:
    """The slot of an affinity key, of those in service. Raises `ValueError` for no slots."""
    return owner(key, slots)


def home_of_session(session: SessionId, slots: Iterable[Slot]) -> Slot:
    """The slot of a client without a key: its session id leads there. Raises `ValueError` for no slots."""
    return owner(session.encode("ascii"), slots)


def home_of(key: bytes | None, session: SessionId, slots: Iterable[Slot]) -> Slot:
    """The slot of a connection that was routed by `key`, or by none. Raises `ValueError` for no slots."""
    return home_of_session(session, slots) if key is None else home_of_key(key, slots)
