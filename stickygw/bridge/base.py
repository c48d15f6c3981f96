"""The promise of every bridge: rooms across workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published at an address: see `stickygw.wire.envelope.Envelope` for its parts.

    `origin` and `number` say whose it is and which, once it has been published; b"" and 0 before.
    """

    opcode: int
    payload: bytes
    to: str = ""
    group: bytes = b""
    origin: bytes = field(default=b"", compare=False)
    number: int = field(default=0, compare=False)


OnPublication = Callable[[str, Publication], None]
"""Called with the address and what another worker, or program, published there. It must not wait."""

OnGap = Callable[[list[str]], None]
"""Called with the addresses at which something may have been missed: never an empty list. It must not wait."""

OnCopy = Callable[[bytes, bytes], None]
"""Called with the channel and the bytes of an envelope. It must not wait."""

CONFIRM_SECONDS = 2.0
"""How long the awaitable of `Bridge.subscribe` lasts at most."""


class Bridge(Protocol):
    """Carries messages between the workers that share a store, by addresses (`stickygw.bridge.addresses`).

    At most once, never twice, in order for each sender and room. What cannot be carried is lost and counted
    (``bridge_lost``), and where a receiver can know of it, it is told through `OnGap`. A bridge never brings
    a worker its own messages: local members get those directly.
    """

    @property
    def origin(self) -> bytes:
        """What tells this bridge's messages from all others': 8 random bytes."""

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

    def publish(self, address: str, publication: Publication) -> int:
        """Send `publication` to all other workers that receive `address`; never waits. Its number: they rise by one for
        each address. Raises `RoomNameError`."""

    @property
    def backlog(self) -> int:
        """How many published messages the store has not answered yet."""

    async def wait_sent(self) -> None:
        """Return when all that was published before the call went out, or is lost and counted.

        Bounded by what a bridge keeps unanswered and how long it waits for an answer, whatever is published
        meanwhile.
        """

    # For connections that move between two workers: docs/explanation/live-move.md

    def position_of(self, address: str) -> dict[bytes, int]:
        """The last number that has come from each origin, and of our own: what members have been given here."""

    def is_heard(self, address: str) -> bool:
        """Whether all comes that is published there. False: nobody listens, or `OnGap` follows."""

    def owed(self) -> Callable[[str], bool]:
        """Whether something of ours was lost at an address, and receivers had not been told at the time of this
        call."""

    def ping(self, callback: Callable[[bool], None]) -> None:
        """Call back once, True as soon as all has come that was published before this call, and all is confirmed that
        was subscribed; False if the store is away, or does not answer for a second: what is not confirmed then is told
        as a gap."""

    def copy_to(self, callback: OnCopy, *, with_local: bool) -> None:
        """Give each envelope that is published from now on to `callback` too, at once; those of `publish_copy` only if
        `with_local`."""

    def stop_copies(self, callback: OnCopy) -> None:
        """No more for `callback`. Idempotent."""

    def publish_copy(self, address: str, publication: Publication) -> int:
        """`publish` to the copies alone, at a `local_address`. Its number."""

    def expect_copies(self, origin: bytes, *, ignores_store: bool) -> None:
        """Messages of `origin` come as copies, from now on, all of them: whatever the store does. `ignores_store`: take
        those only, else whichever comes first."""

    @property
    def copied(self) -> Collection[bytes]:
        """Origins whose messages come as copies now."""

    def expect_no_copies(self, origin: bytes) -> None:
        """Take them from the store, as before. Idempotent."""

    def watch_for(self, channel: bytes, data: bytes, callback: Callable[[bytes], None]) -> None:
        """Call back, with its sender, before the store's next message from the sender of this envelope is looked at, if
        that is as new, or newer: for who keeps the envelope, as a copy, unread."""

    def stop_watching(self, callback: Callable[[bytes], None]) -> None:
        """Nothing more for `callback`. Idempotent."""

    def take_copy(self, channel: bytes, data: bytes) -> None:
        """An envelope that came as a copy. It is checked, and counts if it comes first, as if the store had brought
        it."""
