"""What an application's key hooks say and are told: the key as text, and its state as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from stickygw.apps.native.state import packed_value, unpacked
from stickygw.errors import StateValueError
from stickygw.wire.move import VERSION

MAX_KEY_STATE_BYTES = 16 * 1024 * 1024
"""Of what all ``on_key_out`` return for one key, packed: both workers stand still while it is
packed and read, some 10 ms for each MiB."""


class NoKeyState(ValueError):
    """These are no bytes of a key's state that this version knows."""


def text_of(key: bytes) -> str:
    """The value of an affinity key (`stickygw.routing.keys`) as the client sent it: one character for each byte
    (latin-1), as in `Request.headers`."""
    return key.partition(b"\0")[2].decode("latin-1")


def pack_key_state(values: Sequence[Any]) -> bytes:
    """What each ``on_key_out`` has returned, as it travels. Raises `StateValueError`."""
    what = "what on_key_out returned"
    parts = [packed_value(what, value, max_bytes=MAX_KEY_STATE_BYTES) for value in values]
    if (size := sum(map(len, parts))) > MAX_KEY_STATE_BYTES:
        raise StateValueError(f"{what} has {size} bytes packed; at most {MAX_KEY_STATE_BYTES} can move")
    data: bytes = msgpack.packb((VERSION, parts))
    return data


def unpack_key_state(data: bytes) -> list[Any]:
    """What `pack_key_state` made these bytes of. Raises `NoKeyState`."""
    try:
        version, parts = msgpack.unpackb(data)
        if version != VERSION:
            raise NoKeyState(f"a state of version {version}, this worker knows {VERSION}")
        return [unpacked(part) for part in parts]
    except NoKeyState:
        raise
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise NoKeyState(f"{len(data)} bytes that are no state of a key: {error}") from error
