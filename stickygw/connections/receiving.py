"""The client's half of an open WebSocket: frames in, messages out: `Receiving`.

The protocol is the `websockets` library's (Sans-I/O). Complete, unfragmented data frames take a shorter way; whatever
else comes is handed to the library, always as whole frames, so that it stands between two frames at any time and the
bytes of an unfinished frame are ours.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from time import monotonic
from typing import Protocol as Interface

from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.protocol import OPEN, Protocol
from websockets.speedups import apply_mask

from stickygw.connections.fragments import MAX_FRAGMENTS, Fragments
from stickygw.connections.transport import SocketTransport
from stickygw.wire.frames import HEADER_INCOMPLETE, HEADER_INVALID, frame_size

MAX_FRAMES_PER_TURN = 256
"""Frames that are read before other connections have their turn: 64 KiB of the smallest would be 50 ms."""

# The library logs each connection's end at INFO; the gateway writes its own lines.
library_log = logging.getLogger("stickygw.websockets")
library_log.setLevel(logging.WARNING)


class MessageReceiver(Interface):
    """Who the messages of a WebSocket are for."""

    def message_received(self, message: str | bytes) -> None:
        """One whole message. To get no more for now, call `WebSocket.pause`."""

    def connection_ended(self, code: int, reason: str) -> None:
        """The WebSocket is over. Called exactly once, last."""


class Receiving(ABC):
    """Reads while `is_reading`, decodes, and gives the messages to the receiver. What is written in answer, and when
    the end is near, is the derived class's business."""

    __slots__ = (
        "_close_timer",
        "_data",
        "_fragments",
        "_is_blocked",
        "_is_decoding",
        "_is_done",
        "_is_frozen",
        "_is_yielding",
        "_loop",
        "_max_message",
        "_needed",
        "_partial",
        "_protocol",
        "_receiver",
        "_transport",
        "heard_at",
        "is_open",
        "is_paused",
        "pinged_at",
        "received_messages",
    )

    def __init__(
        self,
        transport: SocketTransport,
        protocol: Protocol,
        receiver: MessageReceiver,
        *,
        loop: asyncio.AbstractEventLoop,
        max_message: int,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._receiver = receiver
        self._loop = loop
        self._max_message = max_message
        self.is_open = protocol.state is OPEN
        """Whether a message can be sent: the closing handshake has not begun."""
        self._data = b""  # received, not decoded yet: the receiver has had enough
        self._partial = bytearray()  # the frame that is still coming
        self._needed = 0  # bytes of it, as far as known
        self._fragments: Fragments | None = None
        self.is_paused = False
        self._is_blocked = False  # the client does not read, and is not read
        self._is_decoding = False
        self._is_yielding = False  # other connections have their turn
        self._is_done = False  # a close frame was answered, or the client failed: what follows is not read
        self._is_frozen = False
        self._close_timer: asyncio.TimerHandle | None = None
        self.heard_at = monotonic()
        self.pinged_at: float | None = None
        self.received_messages = 0

    @abstractmethod
    def _write_protocol(self) -> None:
        """Send what the library wants sent, and follow it when it closes."""

    @property
    def is_reading(self) -> bool:
        """Whether bytes from the client, its pongs too, are being read."""
        return not self.is_paused and not self._is_blocked and not self._is_frozen

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
        if self._is_decoding or self._is_yielding or self._is_frozen:  # it goes on by itself, or with `thaw`
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
                self._assemble(event, data)
        self._write_protocol()

    def _assemble(self, frame: Frame, raw: bytes) -> None:
        """Put fragments together (RFC 6455 §5.4); the library has checked their order and size. `raw`: as it came."""
        data, fragments = bytes(frame.data), self._fragments
        if fragments is None:
            is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                self._assembled(data, is_text=is_text)
                return
            fragments = self._fragments = Fragments(raw, is_text=is_text, max_message=self._max_message)
        fragments.add(data, raw)
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
