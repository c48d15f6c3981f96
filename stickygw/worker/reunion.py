"""How a worker whose primary is gone comes to the next one: it is looked for, and told what it cannot know."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from stickygw.ipc.link import Link
from stickygw.ipc.peer import peer_of
from stickygw.types import HandOverId
from stickygw.wire.link import MAX_HOLDINGS, Hold, Holdings, Message, Orphan

log = logging.getLogger("stickygw.worker")

Item = TypeVar("Item")

LOOK_SECONDS = 0.1
"""How often a primary is looked for: nothing tells when a listener appears."""


class NextPrimary:
    """A link to a primary that was found. `on_closed` is called if it is gone after it was `told` all."""

    def __init__(
        self, sock: socket.socket, *, on_message: Callable[[Message, int], None], on_closed: Callable[[], None]
    ) -> None:
        self.link = Link(sock, on_message=on_message, on_closed=self._closed)
        self._on_closed = on_closed
        self._gone = asyncio.Event()
        self._is_told = False

    async def told(self, report: Callable[[Link], Awaitable[None]]) -> bool:
        """Whether it lived until it was told all. A primary that does not read is waited for: the caller has a
        deadline."""
        telling = asyncio.ensure_future(report(self.link))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((telling, gone), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
            self._is_told = telling.done() and not self._gone.is_set()
        finally:
            telling.cancel()
            gone.cancel()
            if not self._is_told:
                self.link.close()
        return self._is_told

    def _closed(self) -> None:
        self._gone.set()
        if self._is_told:
            self._on_closed()


async def find_primary(path: Path) -> socket.socket:
    """A connection to the primary that listens at `path`. The caller's deadline ends this wait."""
    while True:
        sock = _connected(path)
        if sock is not None:
            return sock
        await asyncio.sleep(LOOK_SECONDS)


async def report(
    link: Link,
    *,
    listeners: Sequence[socket.socket],
    connections: Iterable[tuple[HandOverId, bytes | None]],
    learnt: Iterable[bytes],
    orphan: Orphan,
) -> None:
    """Tell a primary all that it cannot know, `orphan` last."""
    for number, listener in enumerate(listeners):
        await _send(link, Hold(number), listener.fileno())
    for some in _parts(connections):
        await _send(link, Holdings(some, []))
    for keys in _parts(learnt):
        await _send(link, Holdings([], keys))
    await _send(link, orphan)


def _connected(path: Path) -> socket.socket | None:
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:  # no descriptor now
        log.debug("cannot look for a primary: %s", error)
        return None
    try:
        sock.setblocking(False)
        sock.connect(str(path))  # a Unix socket connects at once, or not at all (unix(7))
        peer = peer_of(sock)
        if peer.uid == os.geteuid():
            return sock
        log.error("%s belongs to process %d of user %d, who is not ours", path, peer.pid, peer.uid)
    except OSError as error:
        log.debug("no primary at %s: %s", path, error.strerror)
    sock.close()
    return None


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, MAX_HOLDINGS)):
        yield part


async def _send(link: Link, message: Message, fd: int = -1) -> None:
    while not link.send(message, fd):
        writable = asyncio.Event()
        link.wait_writable(writable.set)
        await writable.wait()
