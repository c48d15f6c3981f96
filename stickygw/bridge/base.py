"""The promise of every bridge: rooms across workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from stickygw.wire.prepared import PreparedMessage

OnMessage = Callable[[str, PreparedMessage], None]
"""Called with the room and the message that another worker published there. It must not wait."""

OnGap = Callable[[list[str]], None]
"""Called with the rooms in which messages may have been missed: never an empty list. It must not wait."""

CONFIRM_SECONDS = 2.0
"""How long the awaitable of `Bridge.subscribe` lasts at most."""


class Bridge(Protocol):
    """Carries messages between the workers that share a store.

    At most once, never twice, in order for each sender and room. What cannot be carried is lost and counted
    (``bridge_lost``), and where a receiver can know of it, it is told through `OnGap`. A bridge never brings
    a worker its own messages: local members get those directly.
    """

    @property
    def is_connected(self) -> bool:
        """Whether messages can go and come now."""

    async def start(self) -> None:
        """Connect, or wait a bounded time for it and go on trying in the background."""

    async def stop(self) -> None:
        """Send what waits, within a bound, and end. Nothing is called back afterwards."""

    def subscribe(self, room: str) -> Awaitable[None]:
        """Receive `room` from now on; acts when called, whether or not the result is awaited.

        The awaitable is done when the store has confirmed, so that whatever is published afterwards arrives;
        or at once while the store is away, or after `CONFIRM_SECONDS`: then `OnGap` follows when the room is
        really subscribed. Raises `RoomNameError`.
        """

    def unsubscribe(self, room: str) -> None:
        """Receive `room` no more; acts when called."""

    def publish(self, room: str, message: PreparedMessage) -> None:
        """Send `message` to the room's members on all other workers; never waits. Raises `RoomNameError`."""

    @property
    def backlog(self) -> int:
        """How many published messages the store has not answered yet."""

    async def wait_sent(self) -> None:
        """Return when all that was published before the call went out, or is lost and counted.

        Bounded by what a bridge keeps unanswered and how long it waits for an answer, whatever is published
        meanwhile.
        """
