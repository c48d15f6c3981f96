"""The identifiers that must not be mixed up, as types of their own, and how many slots there are."""

from __future__ import annotations

from typing import Literal, NewType

Slot = NewType("Slot", int)
"""A worker's number, 0 … N-1. A slot outlives the process in it; clients belong to slots, not to pids."""

MAX_SLOTS = 1024
"""The most slots that a gateway has."""

SessionId = NewType("SessionId", str)
"""128 random bits, 32 lowercase hex digits."""

GatewayId = NewType("GatewayId", str)
"""8 lowercase hex digits: whose slots a cookie's hint speaks of."""

WorkerId = NewType("WorkerId", int)
"""One worker process in the life of a primary; never reused."""

HandOverId = NewType("HandOverId", int)
"""One hand-over of one connection by one primary; never reused in its life."""

ConnectionId = NewType("ConnectionId", str)
"""One WebSocket, for as long as its client keeps it open; 16 lowercase hex digits."""

PREFIX_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
"""What ``redis.prefix`` matches. Without a colon, so that a channel or key says where its prefix ends: nothing that one
prefix names can be another's."""

SlowConsumer = Literal["disconnect", "drop_oldest", "drop_newest"]
"""What becomes of a member that does not keep up with its room: it, or messages to it. See the setting of that name."""
