"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple, Protocol

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


class Peer(NamedTuple):
    """The process that connected, or that listens. `pid` is 0 for one that this process cannot see."""

    pid: int
    uid: int


class _HasOptions(Protocol):
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def peer_of(sock: _HasOptions) -> Peer:
    """The peer as the kernel knows it since `connect` or `listen` (SO_PEERCRED)."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid)
