"""Which matches there are, on all workers of all gateways that share a Redis. Pure: `store` fetches what it reads.

Each worker keeps one field of one hash: its matches, and until when that is true. A worker that dies says nothing any
more, and its field is no longer believed after `BELIEVED_SECONDS`. That is for lobbies to show, and for nobody to rely
on: whose a match is, `store` knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgpack

BELIEVED_SECONDS = 5.0
"""It is said every second; a Redis that is slow to answer costs some, and so do clocks of machines that differ."""

FORGOTTEN_SECONDS = 60.0
"""So long after its lease a field is removed by whoever sees it."""

MAX_LISTED = 200
"""A lobby shows no more; those with most players come first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one worker says. `until` is in Unix seconds, `matches` are ids with the number of their players."""

    until: float
    url: str | None
    slot: int
    matches: list[tuple[str, int]]

    def packed(self) -> bytes:
        data: bytes = msgpack.packb([self.until, self.url, self.slot, self.matches])
        return data

    @classmethod
    def unpacked(cls, data: bytes) -> Entry:
        """Raises `ValueError` for what `packed` has not made, or that of other code has."""
        try:
            until, url, slot, matches = msgpack.unpackb(data)
            return cls(float(until), url, slot, [(id, players) for id, players in matches])
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"no entry is in these {len(data)} bytes: {error}") from error


@dataclass(slots=True)
class Directory:
    """What was read last: by worker, ``GATEWAY/SLOT``."""

    workers: dict[str, Entry] = field(default_factory=dict)
    scores: list[tuple[str, int]] = field(default_factory=list)

    def read(self, fields: Mapping[bytes, bytes], *, now: float) -> list[bytes]:
        """Believe those of `fields` whose lease is not over; what nobody needs any more is returned.

        Workers of other code, before or after a deploy, may write other entries: those are passed over.
        """
        entries = {}
        for name, data in fields.items():
            with suppress(ValueError):
                entries[name] = Entry.unpacked(data)
        self.workers = {name.decode(): entry for name, entry in entries.items() if entry.until > now}
        return [name for name, entry in entries.items() if entry.until + FORGOTTEN_SECONDS < now]

    def url_of(self, match: str) -> str | None:
        """Where the gateway that has minted the id of `match` is reached; None: nobody knows."""
        gateway = match.partition(".")[0]
        return next((entry.url for name, entry in self.workers.items() if name.startswith(f"{gateway}/")), None)

    def listing(self) -> dict[str, Any]:
        """What a lobby shows: matches as [id, players, URL of their gateway, slot]. One that has just moved is in two
        entries: the newer one counts."""
        oldest_first = sorted(self.workers.values(), key=lambda entry: entry.until)
        found = {id: [id, players, entry.url, entry.slot] for entry in oldest_first for id, players in entry.matches}
        matches = sorted(found.values(), key=lambda match: (-match[1], match[0]))
        return {"type": "lobby", "matches": matches[:MAX_LISTED], "scores": self.scores}
