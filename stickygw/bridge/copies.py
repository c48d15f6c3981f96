"""The copies that come over a move link, kept unread until what was sent before them has come: `Copies`. Pure."""

from __future__ import annotations

from collections.abc import Callable

from stickygw.bridge.addresses import DIRECT
from stickygw.bridge.base import Bridge

MAX_HELD_BYTES = 16 * 1024 * 1024
"""Of copies that are kept unread. What comes then is left to the store; what that makes old is told as a gap."""


class Copies:
    """A worker's view of what its partner publishes.

    Copies are taken once the partner has said `settled` and our own subscriber has answered a ping since: then all that
    the partner sent through the store before is here, and no copy overtakes it. If the store brings one that we have a
    copy of, or a newer one, that is as good, and the copies are taken first: what the store lost is among them. From
    then on what the store brings of the partner's is ignored, if `ignores_store`; else whichever comes first counts.
    That is for where connections leave for several workers: a pong says that all has come which was published before
    one of these listened, by the others of them too, whose copies come over links of their own.
    """

    def __init__(
        self,
        bridge: Bridge,
        *,
        on_open: Callable[[], None] = lambda: None,
        max_bytes: int = MAX_HELD_BYTES,
        ignores_store: bool = True,
    ) -> None:
        self._bridge = bridge
        self._on_open = on_open
        self._held: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._max_bytes = max_bytes
        self._ignores_store = ignores_store
        self._origin = b""
        self._is_over = False
        self.is_open = False

    def received(self, channel: bytes, data: bytes) -> None:
        """A copy came."""
        if self.is_open:
            self._bridge.take_copy(channel, data)
        elif self._bytes + len(data) <= self._max_bytes:
            self._bytes += len(data)
            self._held.append((channel, data))
            self._bridge.watch_for(channel, data, self._overtaken)
        # else: it comes through the store, or the next one that is taken shows a hole.

    def _overtaken(self, origin: bytes) -> None:
        """The store has brought what we have a copy of, or something newer, whose copy may still be on its way."""
        self._origin = origin
        self.open()

    def settled(self, origin: bytes = b"") -> None:
        """The partner, whose `origin` it is, said so. b"": it has died before."""
        self._origin = origin
        self._open_at_pong()
        if self.is_open:
            self._expect()

    def _open_at_pong(self) -> None:
        def ponged(is_answered: bool) -> None:
            if is_answered or not self._bridge.is_heard(DIRECT):
                self.open()
            elif not self.is_open:  # it is slow, and either answers at last or counts as away
                self._open_at_pong()

        self._bridge.ping(ponged)

    def end(self) -> None:
        """None comes any more. Idempotent."""
        if self._origin:
            self._bridge.expect_no_copies(self._origin)
        self._is_over = True
        if not self.is_open:
            self.settled()

    def open(self) -> None:
        """Take what is kept, and all that comes. Idempotent."""
        if self.is_open:
            return
        self.is_open = True
        self._expect()
        self._bridge.stop_watching(self._overtaken)
        held, self._held = self._held, []
        for channel, data in held:
            self._bridge.take_copy(channel, data)
        self._on_open()

    def _expect(self) -> None:
        if self._origin and not self._is_over:
            self._bridge.expect_copies(self._origin, ignores_store=self._ignores_store)
