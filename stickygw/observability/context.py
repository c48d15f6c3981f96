"""Which connection's handlers run now."""

from __future__ import annotations

from contextvars import ContextVar

from stickygw.types import ConnectionId

connection_id: ContextVar[ConnectionId | None] = ContextVar("stickygw_connection_id", default=None)
"""Set around a connection's handlers, so that what they log, and the tasks they start, carry its id."""
