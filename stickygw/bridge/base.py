"""The promise of every bridge: rooms across workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published at an address: see `stickygw.wire.envelope.Envelope` for its parts."""

    opcode: int
    payload: bytes
    to: str = ""
    group: bytes = b""


OnPublication = Callable[[str, Publication], None]
"""Called with the address and what another worker, or program, published there. It must not wait."""

OnGap = Callable[[list[str]], None]
"""Called with the addresses at which something may have been missed: never an empty list. It must not wait."""

CONFIRM_SECONDS = 2.0
"""How long the awaitable of `Bridge.subscribe` lasts at most."""


class Bridge(Protocol):
    """Carries messages between the workers that share a store, by addresses (`stickygw.bridge.addresses`).

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

    def subscribe(self, address: str) -> Awaitable[None]:
        """Receive `address` from now on; acts when called, whether or not the result is awaited.

        The awaitable is done when the store has confirmed, so that whatever is published afterwards arrives;
        or at once while the store is away, or after `CONFIRM_SECONDS`: then `OnGap` follows when the room is
        really subscribed. Raises `RoomNameError`.
        """

    def unsubscribe(self, address: str) -> None:
        """Receive `address` no more; acts when called."""

    def publish(self, address: str, publication: Publication) -> None:
        """Send `publication` to all other workers that receive `address`; never waits. Raises `RoomNameError`."""

    @property
    def backlog(self) -> int:
        """How many published messages the store has not answered yet."""

    async def wait_sent(self) -> None:
        """Return when all that was published before the call went out, or is lost and counted.

        Bounded by what a bridge keeps unanswered and how long it waits for an answer, whatever is published
        meanwhile.
        """
