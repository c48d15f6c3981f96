"""Workers' ends of the Redis bridge that keep what comes."""

from __future__ import annotations

from random import Random

from stickygw.bridge.base import Publication
from stickygw.bridge.redis import RedisBridge
from stickygw.observability.counters import Counters
from stickygw.wire.envelope import EnvelopeKeys
from stickygw.wire.prepared import TEXT


class Node:
    """A worker's end of the bridge over the store at `url`. No `secrets`: nothing is signed. `now` is its clock."""

    def __init__(self, url: str, prefix: str, *, secrets: tuple[bytes, ...] = ()) -> None:
        self.counters = Counters()
        self.received: list[str] = []
        self.gaps: list[list[str]] = []
        self.now = 0.0
        self.bridge = RedisBridge(
            url,
            prefix=prefix,
            keys=EnvelopeKeys(secrets),
            on_publication=lambda address, publication: self.received.append(publication.payload.decode()),
            on_gap=self.gaps.append,
            counters=self.counters,
            random=Random(),
            clock=lambda: self.now,
        )

    def publish(self, *texts: str, room: str = "room") -> None:
        """Publish each as a text message."""
        for text in texts:
            self.bridge.publish(room, Publication(TEXT, text.encode()))

    def lost(self) -> dict[str, int]:
        """How many messages were lost, by reason."""
        reasons = ("queue_full", "away", "uncertain", "refused")
        return {why: count for why in reasons if (count := self.counters.value("bridge_lost", why))}
