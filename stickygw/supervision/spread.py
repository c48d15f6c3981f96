"""Over how long the clients of a worker that drains are sent away."""

from __future__ import annotations

CLIENTS_PER_SECOND = 500
"""So many are sent away in a second, unless `drain_spread` is set: they all come back with a handshake."""


def spread_for(connections: int, *, drain_spread: float | None, drain_timeout: float) -> float:
    """Seconds for all `connections` of a worker, never more than `drain_timeout`."""
    spread = connections / CLIENTS_PER_SECOND if drain_spread is None else drain_spread
    return min(spread, drain_timeout)


def spread_for_rest(spread_seconds: float, *, left: int, total: int) -> float:
    """Seconds for those that are `left` of `total`, which would have had `spread_seconds`: the same pace."""
    return spread_seconds * min(1.0, left / total) if total else 0.0
