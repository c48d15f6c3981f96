"""What uvicorn's protocol classes see of a connection: an `asyncio.Transport` over our `SocketTransport`.

Theirs are write, close and flow control. Reading is the connection's (`stickygw.apps.asgi.connection`), which feeds
them; they only say when they have enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol, cast

from stickygw.connections.flow import HIGH_WATER_BYTES
from stickygw.connections.transport import LINGER_SECONDS, SocketTransport


class TransportUser(Protocol):
    """Who feeds the protocol: the connection."""

    def answer_begins(self, data: bytes) -> None:
        """Write `data`, which begins with the head of an answer."""

    def message_written(self, data: bytes) -> bool:
        """What follows an answer's head was accepted for the client; whether more is likely to follow in this turn."""

    def flow_changed(self) -> None:
        """The protocol has had enough, or wants more; or the client has, of what is written."""

    def outbox_overflowed(self) -> None:
        """More waits for the client than may."""


class AsgiTransport(asyncio.Transport):
    """One connection's writing side. `max_outbox` bounds what waits in it, in bytes, but for a single large write.

    Over `HIGH_WATER_BYTES` the protocol is told to pause. `close` lets what was written leave first; how long the
    client may take to read it is bounded by `AsgiConnection.look`.
    """

    __slots__ = (
        "_facts",
        "_is_closing",
        "_linger_seconds",
        "_max_outbox",
        "_protocol",
        "_transport",
        "_user",
        "awaits_head",
        "held",
        "is_read_paused",
        "is_write_paused",
    )

    def __init__(
        self,
        transport: SocketTransport,
        user: TransportUser,
        *,
        peername: tuple[str, int] | None,
        sockname: tuple[str, int] | str | None,
        is_secure: bool,
        max_outbox: int,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        # uvicorn takes the addresses from here only if there is no socket.
        self._facts = {"peername": peername, "sockname": sockname, "sslcontext": is_secure or None, "socket": None}
        self._transport = transport
        self._user = user
        self._protocol: asyncio.Protocol | None = None
        self._max_outbox = max_outbox
        self._linger_seconds = linger_seconds
        self._is_closing = False
        self.held = b""
        """What `hold` has got, and nothing has come behind."""
        self.awaits_head = False
        """Whether the next bytes begin an answer."""
        self.is_read_paused = False
        """Whether the protocol has had enough for now."""
        self.is_write_paused = False
        """Whether the client takes less than is written."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._facts.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    # Reading

    def is_reading(self) -> bool:
        return not self.is_read_paused and not self._is_closing

    def pause_reading(self) -> None:
        self.is_read_paused = True
        self._transport.is_paused = True  # `pause_reading`, without its call: this is done for each message

    def resume_reading(self) -> None:
        self.is_read_paused = False
        self._user.flow_changed()

    # Writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._is_closing:
            return
        if type(data) is not bytes:
            data = bytes(data)
        transport = self._transport
        is_alone = not transport.outbox_bytes
        if self.held:
            data, self.held = self.held + data, b""
            transport.write_now(data)
        elif self.awaits_head:
            self._user.answer_begins(data)
        elif not data:
            return
        elif self._user.message_written(data):
            transport.write(data)
        else:
            transport.write_now(data)
        if transport.outbox_bytes and transport.outbox_cost > HIGH_WATER_BYTES:
            self._check_outbox(is_alone=is_alone)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def hold(self, data: bytes) -> None:
        """Write `data` together with what comes next, or when there comes nothing more (`release`)."""
        self.held = data

    def release(self) -> None:
        """Write what is held back."""
        if self.held:
            data, self.held = self.held, b""
            self._transport.write_now(data)

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._transport.outbox_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, HIGH_WATER_BYTES

    def _check_outbox(self, *, is_alone: bool) -> None:
        self._transport.flush()
        if self._transport.outbox_cost > self._max_outbox and not is_alone:
            self._user.outbox_overflowed()
        if self._transport.blocked_since is not None and not self.is_write_paused:
            self.is_write_paused = True
            assert self._protocol is not None
            self._protocol.pause_writing()
            self._user.flow_changed()

    def write_resumed(self) -> None:
        """The outbox is empty again."""
        if self._is_closing:
            self._transport.close(self._linger_seconds)
        elif self.is_write_paused:
            self.is_write_paused = False
            assert self._protocol is not None
            self._protocol.resume_writing()
            self._user.flow_changed()

    # Closing

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closed

    def close(self) -> None:
        """Write no more; close when what was written has left."""
        if self.is_closing():
            return
        self.release()
        self._is_closing = True
        self._transport.flush()
        # The socket's own close gives a blocked outbox no more than its linger time.
        if self._transport.blocked_since is None:
            self._transport.close(self._linger_seconds)
        else:
            self._transport.pause_reading()  # nobody is there for what the client still sends; `close` drops it

    def abort(self) -> None:
        self._is_closing = True
        self._transport.abort()
