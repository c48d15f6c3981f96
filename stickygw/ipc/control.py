"""The gateway's end of the control socket: a Unix stream socket on which commands of the same user come in.

The bytes are `stickygw.wire.control`'s; what a command does is the caller's. Every request that was read is carried out
to its end, whether or not its client stays: a reload must not be half done because a terminal was closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from stickygw.errors import ExitCode, OperatorError, RuntimeDirError
from stickygw.ipc.peer import peer_of
from stickygw.wire.control import (
    ControlError,
    Decoder,
    Failure,
    Progress,
    Reply,
    Request,
    Result,
    decode_request,
    encode,
)

log = logging.getLogger("stickygw.control")

MAX_CLIENTS = 32
IDLE_SECONDS = 60.0
"""A client that asks nothing for so long is closed; one may always come again."""
REQUEST_SECONDS = 10.0
"""A request must be complete so long after its first byte."""
SEND_SECONDS = 10.0
"""A client must take an answer in so long."""
MAX_UNREAD_BYTES = 64 * 1024
"""Progress is left out while so much waits for a client that does not read."""
_READ_BYTES = 64 * 1024

Say = Callable[[str], None]
"""Takes a line of progress."""
Handle = Callable[[Request, Say], Awaitable[dict[str, Any]]]
"""Carries a request out and gives the facts of its result. `OperatorError`: refused or failed, with its exit code."""


class ControlServer:
    """The control socket at `path`, in a directory that is private to this user and locked by this process.

    `handle` is called for each request, for several clients at once. `uid` is whose processes may command: our own.
    """

    def __init__(self, path: Path, handle: Handle, *, uid: int | None = None) -> None:
        self._path = path
        self._handle = handle
        self._uid = os.geteuid() if uid is None else uid
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        """Those of the clients whose request is being carried out or answered."""
        self._is_ending = False

    async def start(self) -> None:
        """Listen, after `drain` again. A socket that a gateway has left behind is removed. Raises `RuntimeDirError`."""
        self._is_ending = False
        self._server = await asyncio.start_unix_server(self._connected, sock=_bound(self._path))

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and return when those that have come are answered, at most after `seconds`.

        Not to be awaited in `handle`, whose own answer it would wait for.
        """
        self._stop_listening()
        for client in self._clients - self._busy:
            client.cancel()
        if self._busy:
            await asyncio.wait(set(self._busy), timeout=seconds)

    def close(self) -> None:
        """Stop listening, and end what is still being carried out or answered. Idempotent."""
        self._stop_listening()
        for client in self._clients:
            client.cancel()

    def _stop_listening(self) -> None:
        self._is_ending = True
        if self._server is None:
            return
        self._server.close()
        self._server = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error.strerror)

    # One client

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio makes of a coroutine is forgotten when the client goes away.
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._gone)

    def _gone(self, client: asyncio.Task[None]) -> None:
        self._clients.discard(client)
        self._busy.discard(client)
        if not client.cancelled() and (error := client.exception()) is not None:
            log.error("a client of the control socket met a defect", exc_info=error)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # so that drain() means: the kernel has it all
        try:
            self._admit(writer)
            decoder = Decoder(decode_request)
            while (request := await _next_request(reader, decoder)) is not None:
                await self._answer(request, writer)
                if self._is_ending:
                    break
        except ControlError as error:
            log.warning("control: %s", error)
            await _send(writer, Failure(ExitCode.COMMAND, str(error)))
        except ConnectionError as error:
            log.debug("control: the client went away: %s", error)
        finally:
            writer.close()

    def _admit(self, writer: asyncio.StreamWriter) -> None:
        """Raises `ControlError` for a client that may not command."""
        peer = peer_of(writer.get_extra_info("socket"))
        if peer.uid != self._uid:
            raise ControlError(f"the process {peer.pid} of user {peer.uid} may not command this gateway")
        if len(self._clients) > MAX_CLIENTS:
            raise ControlError(f"{MAX_CLIENTS} clients use the control socket already: try again later")

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._busy.add(this)
        await _send(writer, await self._carry_out(request, writer))
        self._busy.discard(this)

    async def _carry_out(self, request: Request, writer: asyncio.StreamWriter) -> Reply:
        def say(text: str) -> None:
            log.debug("control: %s: %s", request.do, text)
            if not writer.is_closing() and writer.transport.get_write_buffer_size() < MAX_UNREAD_BYTES:
                writer.write(encode(Progress(text)))

        try:
            return Result(await self._handle(request, say))
        except OperatorError as error:
            return Failure(error.exit_code, str(error))
        except Exception:  # the gateway lives on, whatever a command does
            log.exception("control: %s met a defect", request.do)
            return Failure(ExitCode.INTERNAL, "this is a defect in stickygw: the gateway's log has its traceback")


def _bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        sock.bind(os.fspath(path))
        path.chmod(0o600)
    except OSError as error:
        sock.close()
        raise RuntimeDirError(f"the control socket {path} cannot be made: {error.strerror or error}") from error
    return sock


async def _next_request(reader: asyncio.StreamReader, decoder: Decoder[Request]) -> Request | None:
    """The client's next request; None: it has gone away or asks nothing. Raises `ControlError`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(REQUEST_SECONDS if decoder.has_begun else IDLE_SECONDS) as limit:
            while (request := decoder.next_message()) is None:
                is_first = not decoder.has_begun
                data = await reader.read(_READ_BYTES)
                if not data:
                    return None
                decoder.feed(data)
                if is_first:
                    limit.reschedule(loop.time() + REQUEST_SECONDS)
            return request
    except TimeoutError:
        if decoder.has_begun:
            raise ControlError(f"a request must be complete within {REQUEST_SECONDS:g} s") from None
        return None


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Give `reply` to the kernel. A client that does not take it is cut, and one that has gone away is let go."""
    if writer.is_closing():
        return
    writer.write(_encoded(reply))
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await writer.drain()
    except TimeoutError:
        log.warning("control: a client did not take its answer within %g s", SEND_SECONDS)
        writer.transport.abort()
    except ConnectionError as error:
        log.debug("control: the client went away: %s", error)


def _encoded(reply: Reply) -> bytes:
    try:
        return encode(reply)
    except ControlError as error:
        return encode(Failure(ExitCode.COMMAND, f"the answer cannot be sent: {error}"))
