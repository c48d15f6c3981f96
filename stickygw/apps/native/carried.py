"""What a connection is when it goes to another worker, but for its socket: `Carried`, and its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import msgpack

from stickygw.apps.native.state import packed, packed_value, unpacked
from stickygw.connections.frozen import FrozenWebSocket
from stickygw.types import SessionId
from stickygw.wire.link import Offer
from stickygw.wire.move import VERSION


class NotCarried(ValueError):
    """These are no bytes of a `Carried` that this version knows, or it has a value that no bytes can say."""


@dataclass(frozen=True, slots=True)
class CarriedRequest:
    """See `stickygw.Request`; `headers` in their order."""

    path: str
    query_string: str = field(repr=False)
    headers: list[tuple[str, str]] = field(repr=False)
    subprotocol: str | None


@dataclass(frozen=True, slots=True)
class CarriedSession:
    """See `Session.carried`. `ends_at`: when its client's time is over, in Unix seconds."""

    id: SessionId = field(repr=False)
    ends_at: float | None
    is_stored: bool
    stored: dict[str, bytes] = field(repr=False)
    unsaved: dict[str, bytes | None] = field(repr=False)
    touched_seconds: float | None
    is_stale: bool


@dataclass(frozen=True, slots=True)
class Carried:
    """`addresses` and `groups`: see `stickygw.bridge.departures.Ticket`; `inbox` waits for the handler; `open_seconds`
    is how long it has been open; `values` are what each ``on_move_out`` has returned."""

    id: str
    offer: Offer
    open_seconds: float
    request: CarriedRequest
    session: CarriedSession
    user: str | None
    state: Mapping[str, Any]
    values: Sequence[Any]
    addresses: tuple[str, ...]
    groups: tuple[bytes, ...]
    inbox: tuple[str | bytes, ...]
    websocket: FrozenWebSocket

    def to_bytes(self) -> bytes:
        """Its bytes. Raises `NotCarried`."""
        try:
            data: bytes = msgpack.packb(
                (
                    VERSION,
                    self.id,
                    astuple(self.offer),
                    self.open_seconds,
                    astuple(self.request),
                    astuple(self.session),
                    self.user,
                    {name: packed(name, value) for name, value in self.state.items()},
                    [packed_value("what on_move_out returned", value) for value in self.values],
                    self.addresses,
                    self.groups,
                    self.inbox,
                    self.websocket.to_plain(),
                )
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise NotCarried(str(error)) from error
        return data

    @classmethod
    def of_bytes(cls, data: bytes) -> Carried:
        """What has these bytes. Raises `NotCarried`."""
        try:
            version, *parts = msgpack.unpackb(data, strict_map_key=False)
            if version != VERSION:
                raise NotCarried(f"a connection of version {version}, this worker knows {VERSION}")
            id, offer, open_seconds, request, session, user, state, values, *rest = parts
            addresses, groups, inbox, websocket = rest
            path, query_string, headers, subprotocol = request
            carried = cls(
                id,
                Offer(*offer),
                open_seconds,
                CarriedRequest(path, query_string, [(name, value) for name, value in headers], subprotocol),
                CarriedSession(*session),
                user,
                {name: unpacked(data) for name, data in state.items()},
                tuple(map(unpacked, values)),
                tuple(addresses),
                tuple(groups),
                tuple(inbox),
                FrozenWebSocket.of_plain(websocket),
            )
        except NotCarried:
            raise
        except (TypeError, ValueError, IndexError, msgpack.UnpackException) as error:
            raise NotCarried(f"{len(data)} bytes that are no connection: {error}") from error
        return carried
