"""The gateway's half of an open WebSocket: messages out, back-pressure, and the closing handshake: `Sending`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from websockets.exceptions import InvalidState
from websockets.protocol import OPEN, Protocol

from stickygw.connections.flow import HIGH_WATER_BYTES
from stickygw.connections.held_back import HeldBack
from stickygw.connections.receiving import MessageReceiver, Receiving
from stickygw.connections.transport import SocketTransport
from stickygw.observability.counters import Counters
from stickygw.types import SlowConsumer
from stickygw.wire.prepared import Batch, PreparedMessage

CLOSE_SECONDS = 4.5
"""How long after a close frame the TCP connection ends, whatever the client does. Promised are 5."""

SLOW_CLOSE_SECONDS = 1.0
"""The same for a client that does not read, whom the close frame may never reach."""


class Sending(Receiving):
    """Writes what the kernel takes, keeps the rest within bounds, and ends who does not take it. Frozen, it writes
    nothing: what is sent is held back, and an end that is asked for waits in `_at_thaw`."""

    __slots__ = (
        "_at_thaw",
        "_close_at",
        "_counters",
        "_held",
        "_max_outbox",
        "is_compressed",
        "is_spared",
        "sent_messages",
    )

    def __init__(
        self,
        transport: SocketTransport,
        protocol: Protocol,
        receiver: MessageReceiver,
        *,
        loop: asyncio.AbstractEventLoop,
        max_message: int,
        max_outbox: int,
        counters: Counters,
    ) -> None:
        super().__init__(transport, protocol, receiver, loop=loop, max_message=max_message)
        self._max_outbox = max_outbox
        self._counters = counters
        self._held: HeldBack | None = None  # None: nothing is held back; else the transport is blocked or frozen
        self.is_compressed = bool(protocol.extensions)
        self._at_thaw: Callable[[], None] | None = None  # the end that was asked for meanwhile
        self._close_at = 0.0  # when it is due: uvloop's handle of a timer that is due at once does not tell
        self.is_spared = False
        """Whether it is blocked, and was given messages of rooms that drop them: then it is not closed for being slow
        as long as it reads at all."""
        self.sent_messages = 0

    @property
    def blocked_since(self) -> float | None:
        """Since when (monotonic seconds) the client has not taken what waits for it; None when nothing waits."""
        return self._transport.blocked_since

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait to be written, about."""
        return self._transport.outbox_bytes + (0 if self._held is None else self._held.cost)

    @property
    def unsent_writes(self) -> int:
        """Writes that wait, each a frame or more."""
        return self._transport.outbox_writes + (0 if self._held is None else len(self._held))

    # Sending

    def send(self, message: PreparedMessage) -> None:
        """Queue a message. Nothing happens once the closing handshake has begun."""
        if self.is_open:
            if self._held is not None:
                self._hold((message,), "disconnect")
                return
            self.sent_messages += 1
            is_alone = self._transport.outbox_bytes == 0
            self._transport.write(message.compressed if self.is_compressed else message.plain)
            if self._transport.outbox_cost > HIGH_WATER_BYTES:
                self._check_outbox(is_alone=is_alone)

    def deliver(self, batch: Batch) -> None:
        """Send messages, now, or do with them what ``batch.policy`` says if the client does not take them.

        Nothing happens once the closing handshake has begun.
        """
        if self.is_open:
            if batch.policy != "disconnect" or self._held is not None:
                self._deliver_patiently(batch)
                return
            transport, count = self._transport, len(batch.messages)
            self.sent_messages += count
            if transport.outbox_bytes == 0:
                transport.write_now(batch.compressed if self.is_compressed else batch.plain)
                if transport.outbox_bytes > HIGH_WATER_BYTES:
                    self._check_outbox(is_alone=count == 1)
            else:
                transport.write(batch.compressed if self.is_compressed else batch.plain)
                if transport.outbox_cost > HIGH_WATER_BYTES:
                    self._check_outbox()

    def drained(self) -> asyncio.Future[None]:
        """Done when everything queued has been written, or the connection is over."""
        return self._transport.drained()

    def ping(self) -> None:
        """Ask for a sign of life; frozen, it can give none."""
        if self.is_open and not self._is_frozen:
            self.pinged_at = monotonic()
            self._protocol.send_ping(b"")
            self._write_protocol()

    def close(self, code: int, reason: str = "", *, within: float = CLOSE_SECONDS) -> None:
        """Begin the closing handshake; the connection ends `within` seconds. Idempotent."""
        if self._is_frozen:
            self._end_at_thaw(partial(self.close, code, reason, within=within))
            return
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:
            pass  # closing already
        else:
            self._write_protocol()  # which puts it behind what is held back
        self._end_within(within)

    def close_slow(self) -> None:
        """Close with 1013, and count it: the client does not read."""
        if self._is_frozen:
            self._end_at_thaw(self.close_slow)
            return
        if self.is_open:
            self._counters.add("connections_closed", "slow_consumer")
        self._held = None
        self.close(1013, "slow consumer", within=SLOW_CLOSE_SECONDS)

    def abort(self) -> None:
        """End at once, without a closing handshake."""
        self._transport.abort()

    def _check_outbox(self, *, is_alone: bool = False) -> None:
        """What a client makes us write, pongs too, is bounded: who does not read is not read, and closed at last.

        `is_alone`: one message waits, and nothing before it. However long it is, it only has to be read in time.
        """
        self._transport.flush()
        if self._transport.outbox_cost > self._max_outbox and not is_alone and self.is_open:
            self.close_slow()
        elif self._transport.blocked_since is not None and not self._is_done:
            # In the closing handshake too: pings are still answered then, and it ends by its own deadline.
            self._is_blocked = True
            self._transport.pause_reading()

    # Held back

    def _deliver_patiently(self, batch: Batch) -> None:
        """`deliver` for a room that drops, or behind what is held back."""
        transport = self._transport
        if not transport.is_stuck:
            data = batch.compressed if self.is_compressed else batch.plain
            if len(data) <= HIGH_WATER_BYTES or len(batch.messages) == 1:
                self.sent_messages += len(batch.messages)
                transport.write_now(data)
                if transport.outbox_bytes > HIGH_WATER_BYTES:
                    transport.flush()
            else:  # what the kernel does not take of it must still be whole messages
                self._hold(batch.messages, batch.policy)
                self._release()
        else:
            self._hold(batch.messages, batch.policy)
        if batch.policy != "disconnect":
            self.is_spared = transport.is_stuck

    def _hold(self, messages: Sequence[PreparedMessage], policy: SlowConsumer) -> None:
        """Hold messages back, and drop what is too much; if that is not enough for what must be kept, close."""
        if self._held is None:
            self._held = HeldBack(self._transport, self._counters, max_bytes=self._max_outbox)
        held = self._held
        if self._is_frozen and self._has_too_much(held):
            return  # `thaw` closes it
        self.sent_messages += held.add(
            (message.compressed if self.is_compressed else message.plain for message in messages), policy
        )
        if self._is_frozen:
            return
        if not held:
            self._held = None
        elif held.is_too_much:  # what must be kept is bounded as the outbox is: see `_check_outbox`
            self.close_slow()
        elif held.is_high:
            self._is_blocked = True
            self._transport.pause_reading()

    def _release(self) -> None:
        """Write what is held back while the kernel takes it."""
        if self._held is not None:
            self.sent_messages += self._held.release()
        if not self._held:
            self._held = None

    # The end

    def _write_protocol(self) -> None:
        """Send what the library wants sent, and follow it when it closes.

        A ping or pong overtakes what is held back, or it would wait behind a megabyte; a close frame does not.
        """
        self.is_open = self._protocol.state is OPEN
        if self._held is not None and not self.is_open:
            held, self._held = self._held, None
            self.sent_messages += held.write_all()
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:  # SEND_EOF: the closing handshake is complete, or the client failed it
                self._is_done = True
                self._transport.close(CLOSE_SECONDS)
        if self._transport.outbox_cost > HIGH_WATER_BYTES and not self._is_done:
            self._check_outbox()

    def _end_within(self, seconds: float) -> None:
        if self._transport.is_closed:
            return
        when = self._loop.time() + seconds
        if self._close_timer is not None:
            if self._close_at <= when:
                return
            self._close_timer.cancel()
        self._close_at, self._close_timer = when, self._loop.call_at(when, self._transport.abort)
        # The client's close frame must be read even if its messages are not wanted now; `_message` drops them.
        self.is_paused = self._is_blocked = False
        self._continue()

    def _has_too_much(self, held: HeldBack) -> bool:
        """As in `_check_outbox`, one message with nothing before it is never too much."""
        return held.is_too_much and (len(held) > 1 or self._transport.outbox_bytes > 0)

    def _end_at_thaw(self, end: Callable[[], None]) -> None:
        self._at_thaw = self._at_thaw or end
        self.is_open = False
