"""Both kinds of publisher behind one face, and a worker's end of the bridge that keeps what reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from stickygw.bridge.base import Publication
from stickygw.bridge.redis import RedisBridge
from stickygw.observability.counters import Counters
from stickygw.publisher import AsyncPublisher, Publisher
from stickygw.wire.envelope import EnvelopeKeys

SECRET = "a secret of at least thirty-two bytes"


class Listener:
    """A worker's end of the bridge."""

    def __init__(self, url: str, prefix: str, *secrets: str) -> None:
        self.counters = Counters()
        self.received: list[tuple[str, Publication]] = []
        self.gaps: list[list[str]] = []
        self.bridge = RedisBridge(
            url,
            prefix=prefix,
            keys=EnvelopeKeys([secret.encode() for secret in secrets]),
            on_publication=lambda address, publication: self.received.append((address, publication)),
            on_gap=self.gaps.append,
            counters=self.counters,
            random=Random(),
        )

    @property
    def payloads(self) -> list[bytes]:
        """Those of all that came."""
        return [publication.payload for _, publication in self.received]

    async def hear(self, *addresses: str) -> None:
        """Start, and be subscribed to these."""
        await self.bridge.start()
        for address in addresses:
            await self.bridge.subscribe(address)


class InThread:
    """A `Publisher` with the methods of an `AsyncPublisher`: each call in a thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.publisher = Publisher(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.publisher, name)
        return lambda *arguments, **options: asyncio.to_thread(method, *arguments, **options)


KINDS: Sequence[type] = (InThread, AsyncPublisher)
