"""One open WebSocket on a transport: frames in, messages out, back-pressure both ways.

The protocol is the `websockets` library's (Sans-I/O). Complete, unfragmented data frames take a shorter way; whatever
else comes is handed to the library, always as whole frames, so that it stands between two frames at any time and the
bytes of an unfinished frame are ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import Protocol as Interface

from websockets.exceptions import InvalidState
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.protocol import OPEN, Protocol
from websockets.speedups import apply_mask

from stickygw.connections.fragments import MAX_FRAGMENTS, Fragments
from stickygw.connections.held_back import HeldBack
from stickygw.connections.transport import HIGH_WATER_BYTES, SocketTransport
from stickygw.observability.counters import Counters
from stickygw.types import SlowConsumer
from stickygw.wire.frames import HEADER_INCOMPLETE, HEADER_INVALID, frame_size
from stickygw.wire.prepared import Batch, PreparedMessage

CLOSE_SECONDS = 4.5
"""How long after a close frame the TCP connection ends, whatever the client does. Promised are 5."""

SLOW_CLOSE_SECONDS = 1.0
"""The same for a client that does not read, whom the close frame may never reach."""

MAX_FRAMES_PER_TURN = 256
"""Frames that are read before other connections have their turn: 64 KiB of the smallest would be 50 ms."""

ABNORMAL_CLOSURE = 1006

# The library logs each connection's end at INFO; the gateway writes its own lines.
library_log = logging.getLogger("stickygw.websockets")
library_log.setLevel(logging.WARNING)


class MessageReceiver(Interface):
    """Who the messages of a WebSocket are for."""

    def message_received(self, message: str | bytes) -> None:
        """One whole message. To get no more for now, call `WebSocket.pause`."""

    def connection_ended(self, code: int, reason: str) -> None:
        """The WebSocket is over. Called exactly once, last."""


class WebSocket:
    """An open WebSocket; `transport` and `protocol` are its own from here on.

    `max_message` bounds incoming messages in bytes (1009). A client that lets more than `max_outbox` bytes wait for it
    is closed with 1013, unless what waits is of rooms that drop it: that is `HeldBack`, within the same bound,
    while the socket is blocked. `received_messages` were delivered to the receiver, `sent_messages` accepted for the
    client and not dropped; both stay when the connection is over.
    """

    __slots__ = (
        "_close_at",
        "_close_timer",
        "_counters",
        "_data",
        "_fragments",
        "_held",
        "_is_blocked",
        "_is_decoding",
        "_is_done",
        "_is_yielding",
        "_loop",
        "_max_message",
        "_max_outbox",
        "_needed",
        "_partial",
        "_protocol",
        "_receiver",
        "_transport",
        "heard_at",
        "is_compressed",
        "is_open",
        "is_paused",
        "is_spared",
        "pinged_at",
        "received_messages",
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
        self._transport = transport
        self._protocol = protocol
        self._receiver = receiver
        self._loop = loop
        self._max_message = max_message
        self._max_outbox = max_outbox
        self._counters = counters
        self._held: HeldBack | None = None  # None: nothing is held back; else the transport is blocked
        self.is_compressed = bool(protocol.extensions)
        self.is_open = protocol.state is OPEN
        """Whether a message can be sent: the closing handshake has not begun."""
        self._data = b""  # received, not decoded yet: the receiver has had enough
        self._partial = bytearray()  # the frame that is still coming
        self._needed = 0  # bytes of it, as far as known
        self._fragments: Fragments | None = None
        self.is_paused = False
        self._is_blocked = False
        self._is_decoding = False
        self._is_yielding = False  # other connections have their turn
        self._is_done = False  # a close frame was answered, or the client failed: what follows is not read
        self._close_timer: asyncio.TimerHandle | None = None
        self._close_at = 0.0  # when it is due: uvloop's handle of a timer that is due at once does not tell
        self.is_spared = False
        """Whether it is blocked, and was given messages of rooms that drop them: then it is not closed for being slow
        as long as it reads at all."""
        self.heard_at = monotonic()
        self.pinged_at: float | None = None
        self.received_messages = 0
        self.sent_messages = 0

    def start(self, data: bytes) -> None:
        """Begin to read; `data` came right behind the handshake, in the same segment perhaps."""
        self._transport.bound_unsent()
        self._transport.start(self)
        if data:
            self.data_received(data)

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

    @property
    def is_reading(self) -> bool:
        """Whether bytes from the client, its pongs too, are being read."""
        return not self.is_paused and not self._is_blocked

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
        """Ask for a sign of life."""
        if self.is_open:
            self.pinged_at = monotonic()
            self._protocol.send_ping(b"")
            self._write_protocol()

    def close(self, code: int, reason: str = "", *, within: float = CLOSE_SECONDS) -> None:
        """Begin the closing handshake; the connection ends `within` seconds. Idempotent."""
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:
            pass  # closing already
        else:
            self._write_protocol()  # which puts it behind what is held back
        self._end_within(within)

    def close_slow(self) -> None:
        """Close with 1013, and count it: the client does not read."""
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
        if transport.blocked_since is None:
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
            self.is_spared = transport.blocked_since is not None

    def _hold(self, messages: Sequence[PreparedMessage], policy: SlowConsumer) -> None:
        """Hold messages back, and drop what is too much; if that is not enough for what must be kept, close."""
        if self._held is None:
            self._held = HeldBack(self._transport, self._counters, max_bytes=self._max_outbox)
        held = self._held
        self.sent_messages += held.add(
            (message.compressed if self.is_compressed else message.plain for message in messages), policy
        )
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

    # Receiving

    def pause(self) -> None:
        """Deliver no more messages until `resume`."""
        if self._close_timer is None:
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Deliver messages again, first those that are here already."""
        self.is_paused = False
        self._continue()

    def data_received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        self.pinged_at = None
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial.clear()
        self._data += data
        self._continue()

    def _continue(self) -> None:
        if self._is_decoding or self._is_yielding:  # it goes on by itself
            return
        self._is_decoding = True
        try:
            self._decode()
        finally:
            self._is_decoding = False
        if not self.is_paused and not self._is_blocked and not self._is_yielding:
            self._transport.resume_reading()

    def _take_turn(self) -> None:
        self._is_yielding = False
        self._continue()

    def _decode(self) -> None:
        """Walk over what is here, frame by frame, until it ends or the receiver has had enough."""
        data, self._data = self._data, b""
        position, end = 0, len(data)
        budget = MAX_FRAMES_PER_TURN
        while position < end and not self._is_done:
            if self.is_paused or self._is_blocked:
                self._data = data[position:]
                return
            if budget == 0:
                self._data = data[position:]
                self._is_yielding = True
                self._transport.pause_reading()
                self._loop.call_soon(self._take_turn)
                return
            budget -= 1
            stop = self._deliver_direct(data, position, end)
            if not stop:
                assembled = 0 if self._fragments is None else self._fragments.size
                size = frame_size(data, position, self._max_message - assembled)
                stop = position + size
                if size == HEADER_INVALID:
                    stop = end
                elif size == HEADER_INCOMPLETE or stop > end:
                    self._partial += data[position:]
                    self._needed = size or end - position + 1
                    return
                self._feed(data[position:stop])
            position = stop

    def _deliver_direct(self, data: bytes, start: int, end: int) -> int:
        """Deliver the frame at `start` if it is of the commonest kind; where it ends, or 0: it is left to the library.

        That kind: complete, FIN set, text or binary, masked, at most 125 bytes, no fragmented message around it.
        """
        if end - start < 6 or self._fragments is not None:
            return 0
        first, second = data[start], data[start + 1]
        if (first != 0x81 and first != 0x82) or not 0x80 <= second <= 0xFD:
            return 0
        stop = start + 6 + (second & 0x7F)
        if stop > end or second & 0x7F > self._max_message:
            return 0
        payload = apply_mask(data[start + 6 : stop], data[start + 2 : start + 6])
        if first == 0x82:
            self._message(payload)
            return stop
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            return 0
        self._message(text)
        return stop

    def _message(self, message: str | bytes) -> None:
        if self.is_open:  # after our close frame, what still comes is nobody's
            self.received_messages += 1
            self._receiver.message_received(message)

    def _feed(self, data: bytes) -> None:
        """Let the library read whole frames, or whatever it will refuse."""
        self._protocol.receive_data(data)
        self.is_open = self._protocol.state is OPEN
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode not in CTRL_OPCODES:
                self._assemble(event)
        self._write_protocol()

    def _assemble(self, frame: Frame) -> None:
        """Put fragments together (RFC 6455 §5.4); the library has checked their order and size."""
        data, fragments = bytes(frame.data), self._fragments
        if fragments is None:
            is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._assembled(data, is_text=is_text)
                return
            fragments = self._fragments = Fragments(is_text=is_text)
        fragments.add(data)
        if frame.fin:
            self._fragments = None
            self._assembled(fragments.joined(), is_text=fragments.is_text)
        elif fragments.are_too_many:
            self._fail(1009, f"more than {MAX_FRAGMENTS} fragments")

    def _assembled(self, payload: bytes, *, is_text: bool) -> None:
        if not is_text:
            self._message(payload)
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            self._fail(1007, f"{error.reason} at position {error.start}")
        else:
            self._message(text)

    def _fail(self, code: int, reason: str) -> None:
        self._protocol.fail(code, reason)
        self._write_protocol()

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

    # What the transport tells

    def write_resumed(self) -> None:
        self._release()
        if self._held is None:
            self.is_spared = False
        elif self._held.is_high:
            return
        if self._is_blocked:
            self._is_blocked = False
            self._continue()

    def eof_received(self) -> None:
        self._transport.close(0.0)

    def transport_closed(self) -> None:
        self._is_done = True
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._data = b""
        self._held = None
        self._partial.clear()
        self._protocol.receive_eof()
        self.is_open = False
        close = self._protocol.close_rcvd or self._protocol.close_sent
        if close is None:
            self._receiver.connection_ended(ABNORMAL_CLOSURE, "")
        else:
            self._receiver.connection_ended(int(close.code), close.reason)
