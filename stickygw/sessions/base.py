"""The promise of every session store: one hash of packed values for each session."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Protocol

from stickygw.types import SessionId

MAX_INTEGER = 2**53 - 1
"""The largest integer that `SessionStore.increment` keeps, and its negative the smallest: a script in the
store counts in doubles, which hold every integer up to here."""

_SESSION_ID = re.compile("[0-9a-f]{32}")


def check_session_id(id: SessionId) -> str:
    """`id` as a part of a key. Raises `ValueError` unless it is 32 lowercase hex digits."""
    if not _SESSION_ID.fullmatch(id):
        raise ValueError("a session id is 32 lowercase hex digits")
    return id


class SessionStore(Protocol):
    """Keeps sessions: field → msgpack bytes, with a time to live.

    Every method raises `SessionUnavailable` when the store does not answer in time; a change may have been
    made then or not. Ids are checked (`check_session_id`) before they become part of a key.
    """

    async def load(self, id: SessionId) -> dict[str, bytes] | None:
        """All fields, or None when nothing is stored."""

    async def write(self, id: SessionId, changed: Mapping[str, bytes], removed: Collection[str], ttl: int) -> None:
        """Set and remove fields and let the session live `ttl` seconds from now: all of it or nothing."""

    async def increment(self, id: SessionId, field: str, by: int, ttl: int) -> int:
        """Add `by` to an integer field, atomically across all clients; the new value. A missing field counts
        from 0.

        The session lives `ttl` seconds from now. Raises `SessionValueError`, and changes nothing, when the
        field holds no integer or the result would leave ±`MAX_INTEGER`.
        """

    async def touch(self, id: SessionId, ttl: int) -> None:
        """Let the session live `ttl` seconds from now. One that is not stored stays so."""

    async def delete(self, id: SessionId) -> None:
        """Forget the session."""

    async def close(self) -> None:
        """Let go of the store's connections."""
