"""One open WebSocket on a transport: `WebSocket`, which can be frozen and go on in another process.

`receiving` and `sending` are its two halves.
"""

from __future__ import annotations

from time import monotonic

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import OPEN

from stickygw.connections.flow import HIGH_WATER_BYTES
from stickygw.connections.frozen import FrozenWebSocket
from stickygw.connections.held_back import HeldBack
from stickygw.connections.sending import Sending

ABNORMAL_CLOSURE = 1006


class WebSocket(Sending):
    """An open WebSocket; `transport` and `protocol` are its own from here on.

    `max_message` bounds incoming messages in bytes (1009). A client that lets more than `max_outbox` bytes wait for it
    is closed with 1013, unless what waits is of rooms that drop it: that is `HeldBack`, within the same bound,
    while the socket is blocked. `received_messages` were delivered to the receiver, `sent_messages` accepted for the
    client and not dropped; both stay when the connection is over.

    While it is frozen, what is sent is held back, within the same bounds, and an end that is asked for waits: `thaw`
    makes up for it, `let_go` forgets it.
    """

    __slots__ = ()

    def start(self, data: bytes = b"") -> None:
        """Begin to read; `data` came right behind the handshake, in the same segment perhaps."""
        self._transport.bound_unsent()
        self._transport.start(self)
        self.thaw()  # if it was revived
        if data:
            self.data_received(data)

    # Frozen

    @property
    def can_freeze(self) -> bool:
        """Whether `freeze` may be called: not once the end has begun, and not while the receiver is given a message.

        Nor in a compressed message of far more bytes than it decompresses to: nobody keeps them (`FRAMING_BYTES`).
        """
        return (
            self.is_open
            and not self._is_decoding
            and self._transport.can_freeze
            and (self._fragments is None or self._fragments.can_repeat)
        )

    def fileno(self) -> int:
        """The socket's descriptor, to be passed on while it is frozen; -1 when it is closed."""
        return self._transport.fileno()

    def freeze(self) -> FrozenWebSocket:
        """Leave the socket alone until `thaw` or `let_go`, and say what another process needs to `revive` it.

        Raises `RuntimeError` unless `can_freeze`.
        """
        if not self.can_freeze:
            raise RuntimeError("the WebSocket is ending, frozen, or being read")
        now = monotonic()
        deflate = next((each for each in self._protocol.extensions if isinstance(each, PerMessageDeflate)), None)
        frozen = FrozenWebSocket(
            transport=self._transport.freeze(),
            client_window_bits=0 if deflate is None else deflate.remote_max_window_bits,
            undecoded=(b"" if self._fragments is None else self._fragments.frames()) + self._partial + self._data,
            held=() if self._held is None else self._held.frames(),
            is_spared=self.is_spared,
            received_messages=self.received_messages,
            sent_messages=self.sent_messages,
            heard_seconds=now - self.heard_at,
            pinged_seconds=None if self.pinged_at is None else now - self.pinged_at,
        )
        self._become_frozen()
        return frozen

    def restore(self, frozen: FrozenWebSocket) -> None:
        """Become what `frozen` was, and as frozen: it goes on with `start`. The transport is restored already."""
        now = monotonic()
        self._data = frozen.undecoded
        self._become_frozen().restore(frozen.held)
        self.is_spared = frozen.is_spared
        self.received_messages = frozen.received_messages
        self.sent_messages = frozen.sent_messages
        self.heard_at = now - frozen.heard_seconds
        self.pinged_at = None if frozen.pinged_seconds is None else now - frozen.pinged_seconds

    def _become_frozen(self) -> HeldBack:
        self._is_frozen = True
        if self._held is None:  # by which `send` and `deliver` hold back
            self._held = HeldBack(self._transport, self._counters, max_bytes=self._max_outbox)
        return self._held

    def thaw(self) -> None:
        """Go on as if nothing had happened: write what waits, decode what is here, and end if that was asked for.

        If more was sent meanwhile than there is room for, it is closed with 1013. Idempotent.
        """
        if not self._is_frozen or self._held is None:
            return
        is_too_much = self._has_too_much(self._held)  # before something is written: what came after it was not kept
        at_thaw, self._at_thaw = self._at_thaw, None
        self._is_frozen = False
        self.is_open = self._protocol.state is OPEN
        self._transport.thaw()
        self._release()
        transport = self._transport
        if transport.blocked_since is None:
            self._is_blocked = self.is_spared = False
        elif transport.outbox_cost > HIGH_WATER_BYTES or (self._held is not None and self._held.is_high):
            self._is_blocked = True
            transport.pause_reading()
        if is_too_much:
            self.close_slow()
        elif at_thaw is not None:
            at_thaw()
        else:
            self._continue()

    def let_go(self) -> None:
        """It is another process's: forget it, and close our copy of the socket, which sends nothing.

        The receiver is told nothing. Idempotent. Raises `RuntimeError` unless frozen.
        """
        self._transport.let_go()
        self._is_done = True
        self.is_open = False
        self._at_thaw = self._held = self._fragments = None
        self._data = b""
        self._partial.clear()

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
