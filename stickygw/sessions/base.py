"""The promise of every session store: one hash of packed values for each session."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stickygw.errors import SessionEnded
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


class SessionConflict(Exception):
    """A session is not what a change expected of it; nothing was changed. `current`: what each expected field is."""

    def __init__(self, current: dict[str, bytes | None] | None = None) -> None:
        super().__init__("a session was changed by another writer")
        self.current = current or {}


class SessionGone(SessionEnded):
    """Nothing is stored of the session any more, and nobody says that it was ended: it expired, was deleted, or the
    store is back without its data."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is stored of a session. `version` says which store wrote last, ``WRITER:COUNT``; b"" if none of ours did.

    `seconds_left`: to live; None: for ever, by another program.
    """

    fields: dict[str, bytes]
    version: bytes
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Described:
    """A stored session, for operators. `created`: in Unix seconds; None: by another program. `seconds_left`: to live;
    None: for ever. `byte_count`: what it takes, about."""

    created: int | None
    seconds_left: int | None
    field_count: int
    byte_count: int


class SessionStore(Protocol):
    """Keeps sessions: field → msgpack bytes, with a time to live.

    Every method raises `SessionUnavailable` when the store does not answer in time; a change may have been
    made then or not. Ids are checked (`check_session_id`) before they become part of a key.

    A session that was ended is remembered as such. `write` and `increment` refuse it with `SessionEnded`, and
    so they do, unless it `is_new` to the caller, when nothing is stored under the id: a session that expired must not
    come back as the few fields that somebody changes.
    """

    async def load(self, id: SessionId) -> Loaded | None:
        """All fields, or None when nothing is stored. Raises `SessionEnded`."""

    async def write(
        self,
        id: SessionId,
        changed: Mapping[str, bytes],
        removed: Collection[str],
        ttl: int,
        *,
        is_new: bool,
        expected: Mapping[str, bytes | None] | None = None,
    ) -> None:
        """Remove and set fields and let the session live `ttl` seconds from now: all of it or nothing.

        One that keeps no field is stored all the same: it has not ended. Raises `SessionEnded`, and
        `SessionConflict` when a field in `expected` is not, byte for byte, what it has there (None: not stored).
        """

    async def increment(self, id: SessionId, field: str, by: int, ttl: int, *, is_new: bool) -> int:
        """Add `by` to an integer field, atomically across all clients; the new value. A missing field counts
        from 0.

        The session lives `ttl` seconds from now. Raises `SessionEnded`, and `SessionValueError`, changing
        nothing, when the field holds no integer or the result would leave ±`MAX_INTEGER`.
        """

    async def touch(self, id: SessionId, ttl: int) -> bool:
        """Let the session live `ttl` seconds from now; whether it is stored. One that is not stays so."""

    async def end(self, id: SessionId, remember: int, *, version: bytes | None = None) -> None:
        """Delete the session, and refuse its id for `remember` seconds from now. Idempotent, without `version`.

        With the `version` of what was loaded (b"": nothing, or nothing of ours) only what has not changed since is
        ended: otherwise, and if it has ended already, nothing is done and `SessionConflict` raised.
        """

    async def ended_within(self, id: SessionId, remember: int, seconds: float) -> bool:
        """Whether the session was ended, to be remembered for `remember` seconds, in the last `seconds`."""

    async def lease(self, id: SessionId, token: str, seconds: float) -> bool:
        """Take the session's one lease for `seconds`, whole milliseconds of them; False: somebody has it."""

    async def release_lease(self, id: SessionId, token: str) -> None:
        """Give back the lease that was taken with `token`. One that ran out, or is another's, stays as it is."""

    def sessions(self) -> AsyncIterator[SessionId]:
        """The ids of all that is stored throughout, in no order; an id may come twice."""

    async def describe(self, ids: Sequence[SessionId]) -> list[Described | None]:
        """What an operator asks about each session; None when nothing is stored. At most a few hundred at once."""

    async def close(self) -> None:
        """Let go of the store's connections."""
