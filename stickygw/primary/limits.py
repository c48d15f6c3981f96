"""How many descriptors this process and its workers may have, and what follows from it."""

from __future__ import annotations

import resource

OWN_DESCRIPTORS = 128
"""What a worker needs besides its clients' sockets: libraries' files, Redis, the application's own."""


def raise_descriptor_limit() -> int:
    """Raise the soft RLIMIT_NOFILE to the hard one, for this process and its children; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_within(descriptors: int, max_connections: int) -> int:
    """How many connections a worker with `descriptors` can hold, at most `max_connections` and at least 1.

    It is kept below the descriptors, since a receiver at its limit loses a passed one without an error.
    """
    return max(1, min(max_connections, descriptors - OWN_DESCRIPTORS))


def pending_within(descriptors: int, max_pending: int) -> int:
    """How many connections may wait for their head: at most half of the descriptors, the rest is for hand-overs."""
    return max(1, min(max_pending, descriptors // 2))
