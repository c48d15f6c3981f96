"""Takes the connections of another worker: `Coming`. docs/explanation/live-move.md tells the whole."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from websockets.datastructures import Headers

from stickygw.apps.native.carried import Carried as State
from stickygw.apps.native.carried import NotCarried
from stickygw.apps.native.coming_keys import ComingKeys
from stickygw.apps.native.connection import Connection
from stickygw.apps.native.ending import Ending
from stickygw.apps.native.handlers import PathHandlers
from stickygw.apps.native.published import wait_published
from stickygw.apps.native.request import Request
from stickygw.apps.native.runtime import Runtime
from stickygw.connections.revival import revive
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.ipc.memory_file import StateLost, read_copy, read_state, send_copy
from stickygw.ipc.move_link import MoveLink
from stickygw.sessions.session import Session
from stickygw.types import ConnectionId, HandOverId
from stickygw.wire.link import Offer
from stickygw.wire.move import (
    VERSION,
    Adopted,
    Carried,
    Copy,
    Finished,
    Keys,
    KeyState,
    KeyStays,
    Listening,
    MoveMessage,
    Positions,
    Refused,
    Rooms,
    Settled,
)

log = logging.getLogger("stickygw.move")

MAX_STATE_BYTES = 64 * 1024 * 1024
"""Of one connection: more than an outbox, an inbox and an unfinished message of any sensible bounds."""


class Coming:
    """One move, at the new worker, from its beginning to the other one's end of it.

    `is_same_slot`: the other worker had this one's slot. `admit(offer)` says whether there is room for another
    connection, and gives what is to be called at its end; `on_over` is called once.
    """

    def __init__(
        self,
        runtime: Runtime,
        sock: socket.socket,
        *,
        admit: Callable[[Offer], Callable[[], None] | None],
        on_over: Callable[[Coming], None],
        is_same_slot: bool,
    ) -> None:
        self._runtime = runtime
        self._admit = admit
        self._on_over = on_over
        self._is_same_slot = is_same_slot
        self._version = VERSION
        self._positions: dict[str, dict[bytes, int]] = {}
        self._pinged = 0
        self._is_complete = True  # no further part of the positions follows
        self._starting: dict[HandOverId, Callable[[], None]] = {}
        """Adopted, and not served yet: that it is ours is still to be sent."""
        self._link = MoveLink(sock, on_message=self._received, on_closed=self._closed)
        self._rooms = runtime.audience.arrivals(
            send_copy=partial(send_copy, self._link),
            send_listening=lambda number, addresses: self._link.send(Listening(number, addresses)),
            on_gap=runtime.gaps.add,
            is_same_slot=is_same_slot,
        )
        self._keys = ComingKeys(runtime, self._link, on_taking=self._rooms.key_comes)
        runtime.sessions.expect()
        runtime.spawn(self._settle())

    async def _settle(self) -> None:
        await self._runtime.bridge.wait_sent()
        self._rooms.sent()
        self._link.send(Settled(self._runtime.bridge.origin))

    async def _finish(self) -> None:
        """The other side, which closes the link then, has read what was published here before. If it gives to others
        too, the store has it as well, for those may know of it only through there."""
        if not self._is_same_slot:
            await wait_published(self._runtime.bridge)
        self._link.send(Finished())

    # What comes

    def _received(self, message: MoveMessage, fds: list[int]) -> None:
        match message:
            case Carried(id, data):
                self._adopt_or_refuse(id, data, fds)
                return
            case KeyState(key, data):
                self._keys.came(key, data, fds, why_not=self._other_version)
                return
            case Keys(keys, is_complete):
                self._keys.listed(keys, is_complete=is_complete)
            case KeyStays(key):
                self._keys.stays(key)
            case Rooms(version, addresses):
                self._version = version
                if self._other_version:
                    self._keys.end()  # nobody knows what it says of them
                self._rooms.rooms(addresses)
            case Positions(pinged, by_address, copied, is_last):
                self._take_positions(pinged, by_address, copied, is_last=is_last)
            case Copy(channel, data):
                copy = read_copy(data, fds)
                if copy is not None:
                    self._rooms.copies.received(channel, copy)
            case Settled(origin):
                self._rooms.copies.settled(origin)
            case Finished():
                self._keys.end()
                self._rooms.arrived()
                self._runtime.spawn(self._finish())
            case _:
                log.error("move: a %s where none belongs", type(message).__name__)
        for fd in fds:
            os.close(fd)

    def _take_positions(
        self, pinged: int, by_address: dict[str, dict[bytes, int]], copied: list[bytes], *, is_last: bool
    ) -> None:
        if self._is_complete:
            self._positions = {}
            self._rooms.arrived()  # those of the positions before
        self._positions.update(by_address)
        self._pinged, self._is_complete = pinged, is_last
        if is_last:
            self._rooms.position(pinged, self._positions, copied)

    def _adopt_or_refuse(self, id: HandOverId, data: bytes, fds: list[int]) -> None:
        """The old worker gets an answer whatever happens: else it would keep the connection frozen, and let it go."""
        try:
            if not fds:
                raise NotCarried("its descriptor was lost: this worker has as many as it may")
            if self._other_version:
                raise NotCarried(self._other_version)
            state = State.of_bytes(data or read_state(fds[1:], max_bytes=MAX_STATE_BYTES))
            connection = self._adopt(state, os.dup(fds[0]))
        except (NotCarried, StateLost, OSError) as error:
            self._link.send(Refused(id, str(error)))
        except Exception:
            log.exception("move: a connection cannot be taken")
            self._link.send(Refused(id, "a defect, which is in the log of the next worker"))
        else:
            self._starting[id] = partial(connection.start, state.inbox, state.values)
            self._link.send(Adopted(id))
            self._link.when_sent(partial(self._start, id))
        finally:
            for fd in fds:
                os.close(fd)

    @property
    def _other_version(self) -> str:
        """Why nothing of the old worker's can be read; "": it can."""
        if self._version == VERSION:
            return ""
        return f"the old worker moves by version {self._version}, this one by {VERSION}"

    def _adopt(self, state: State, fd: int) -> Connection:
        """The connection, which `start` is to follow. Raises whatever happens, and then nothing is left of it; `fd` is
        owned here."""
        with ExitStack() as undo:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
            undo.callback(sock.close)
            runtime = self._runtime
            handlers = runtime.app.handlers.for_path(state.request.path)
            if handlers is None:
                raise NotCarried(f"no handler serves its path {state.request.path}")
            if handlers.coroutine is not None:
                raise NotCarried(f"a coroutine serves its path {state.request.path} now")
            if runtime.is_stopping or not self._rooms.can_arrive:
                raise NotCarried("this worker takes no more")
            on_ended = self._admit(state.offer)
            if on_ended is None:
                raise NotCarried("this worker is full")
            undo.callback(on_ended)
            session = runtime.sessions.adopt(
                state.session.id,
                is_stored=state.session.is_stored,
                stored=state.session.stored,
                unsaved=state.session.unsaved,
                touched_seconds=state.session.touched_seconds,
                is_stale=state.session.is_stale,
            )
            undo.callback(runtime.sessions.release, session)
            connection, websocket = self._revived(state, sock, session, handlers, on_ended)
            connection.go_on_from(state, websocket)
            undo.pop_all()
            undo.callback(on_ended)
            undo.callback(connection.let_go)
            self._rooms.arrive(
                connection,
                state.addresses,
                state.groups,
                key=state.offer.key,
                pinged=self._pinged,
                positions=self._positions,
            )
            undo.pop_all()
            return connection

    def _revived(
        self,
        state: State,
        sock: socket.socket,
        session: Session,
        handlers: PathHandlers,
        on_ended: Callable[[], None],
    ) -> tuple[Connection, WebSocket]:
        runtime = self._runtime
        transport = SocketTransport(sock, runtime.loop, runtime.flusher)
        request = Request(
            state.request.path,
            state.request.query_string,
            Headers(state.request.headers),
            state.offer.host,
            state.offer.is_secure,
            handlers.parts,
            state.request.subprotocol,
        )
        ending = Ending(
            ConnectionId(state.id),
            state.offer,
            transport,
            is_websocket=True,
            method="GET",
            path=request.path,
            identity=runtime.identity,
            on_ended=on_ended,
            open_seconds=state.open_seconds,
        )
        connection = Connection(runtime, request, session, handlers, ending)
        websocket = revive(
            state.websocket,
            transport,
            connection.receiver,
            loop=runtime.loop,
            max_message=runtime.settings.max_message,
            max_outbox=runtime.settings.outbox_bytes,
            counters=runtime.counters,
        )
        ending.opened(connection, websocket)
        return connection, websocket

    def _start(self, id: HandOverId) -> None:
        start = self._starting.pop(id, None)
        if start is not None:
            start()

    def _closed(self) -> None:
        """The old worker is done, or dead: what it had sent is ours in either case."""
        for id in tuple(self._starting):
            self._start(id)
        self._keys.end()
        self._runtime.audience.end_move(self._rooms)
        self._runtime.sessions.expect_no_more()
        self._on_over(self)
