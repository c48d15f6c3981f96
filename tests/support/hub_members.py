"""Members of a `Hub` that keep what they get, and what to do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stickygw.bridge.hub import Hub
from stickygw.wire.prepared import Batch, PreparedMessage


class Member:
    """A member that keeps each delivery's texts, and does something when it gets them."""

    def __init__(self, on_deliver: Callable[[], object] = lambda: None) -> None:
        self.deliveries: list[list[str]] = []
        self.on_deliver = on_deliver

    def deliver(self, batch: Batch) -> None:
        self.deliveries.append([message.payload.decode() for message in batch.messages])
        self.on_deliver()

    def send_away(self, code: int, reason: str, *, within: float) -> None:
        """Nobody does, here."""

    @property
    def got(self) -> list[str]:
        """The texts of all deliveries."""
        return [text for delivery in self.deliveries for text in delivery]


def joined(hub: Hub, *rooms: str) -> Member:
    """A new member of `rooms`."""
    member = Member()
    for room in rooms:
        hub.join(room, member)
    return member


def publish(hub: Hub, room: str, *texts: str, exclude: Member | None = None, unless: tuple[str, ...] = ()) -> None:
    """Publish each as a text message."""
    for text in texts:
        hub.publish(room, PreparedMessage.of(text), exclude=exclude, unless=unless)


async def next_turn() -> None:
    """Return when all that was scheduled for this turn of the loop has run."""
    await asyncio.sleep(0)


async def delivered(hub: Hub) -> None:
    """Return when nothing waits for anybody."""
    async with asyncio.timeout(5):
        while hub._unsettled:
            await next_turn()
