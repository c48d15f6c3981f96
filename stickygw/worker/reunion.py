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

from stickygw.apps.native.runtime import Runtime
from stickygw.config.places import WORKERS_SOCKET
from stickygw.ipc.lasting_link import LastingLink
from stickygw.ipc.link import Link
from stickygw.ipc.peer import peer_of
from stickygw.types import HandOverId
from stickygw.wire.link import MAX_HOLDINGS, Configure, Hold, Holdings, Message, Orphan
from stickygw.worker.intake import Intake

log = logging.getLogger("stickygw.worker")

Item = TypeVar("Item")

LOOK_SECONDS = 0.1
"""How often a primary is looked for: nothing tells when a listener appears."""


class Reunion:
    """Whatever a worker does to outlive its primary. `on_message` and `on_closed` are those of `link`."""

    def __init__(
        self, link: LastingLink, *, on_message: Callable[[Message, int], None], on_closed: Callable[[], None]
    ) -> None:
        self._link = link
        self._on_message = on_message
        self._on_closed = on_closed
        self._listeners: list[socket.socket] = []
        """Copies, so that clients can connect while no primary lives: they wait in the kernel's queue."""
        self._looking: asyncio.Task[None] | None = None

    def hold(self, listener: socket.socket) -> None:
        """Keep a listening socket open, until `let_go`."""
        self._listeners.append(listener)

    def let_go(self) -> None:
        """This worker ends: nobody is to connect on its account. Idempotent."""
        while self._listeners:
            self._listeners.pop().close()

    def begin(
        self, runtime: Runtime, intake: Intake, who: Callable[[], Orphan], *, on_given_up: Callable[[], None]
    ) -> None:
        """The primary is gone: look for the next one, for `worker_orphan_timeout`; then `on_given_up()`."""
        log.warning("the primary is gone; serving %d connections until another comes", intake.open_connections)
        self._looking = asyncio.ensure_future(self._look(runtime, intake, who, on_given_up))

    def close(self) -> None:
        """Look no more. Idempotent."""
        self.let_go()
        if self._looking is not None:
            self._looking.cancel()

    async def _look(
        self, runtime: Runtime, intake: Intake, who: Callable[[], Orphan], on_given_up: Callable[[], None]
    ) -> None:
        seconds = runtime.settings.worker_orphan_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._meet(runtime, intake, who)
        except TimeoutError:
            log.error("no primary has come in %g s (worker_orphan_timeout): ending", seconds)
            on_given_up()
        except Exception:  # it must not serve for ever
            log.exception("no other primary can be looked for: ending")
            on_given_up()

    async def _meet(self, runtime: Runtime, intake: Intake, who: Callable[[], Orphan]) -> None:
        async def tell(link: Link) -> None:
            await report(
                link,
                listeners=self._listeners,
                connections=intake.holdings(),
                learnt=runtime.registrar.learnt(),
                orphan=who(),
            )

        assert runtime.settings.runtime_dir is not None, "the primary has completed the settings"
        while True:
            sock = await find_primary(runtime.settings.runtime_dir / WORKERS_SOCKET)
            primary = NextPrimary(sock, on_message=self._on_message, on_closed=self._on_closed)
            if await primary.told(tell):
                break
        self._link.attach(primary.link)
        runtime.tells.connect(self._link)
        runtime.registrar.connect(self._link)
        log.info("another primary has come")


def orphan(configure: Configure, *, slots: int, is_draining: bool) -> Orphan:
    """Who a worker is that was told to be `configure`; there are `slots` by now."""
    return Orphan(
        configure.slot, configure.generation, slots, configure.target, configure.settings, is_draining=is_draining
    )


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
