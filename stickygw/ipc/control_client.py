"""The command's end of the control socket: requests to a running gateway, one after another, without an event loop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stickygw.errors import CommandError, NoGatewayError
from stickygw.ipc.peer import peer_of
from stickygw.wire.control import ControlError, Decoder, Failure, Progress, Reply, Request, Result, decode_reply, encode

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 10.0
"""How long a gateway may take for what it knows at once."""
_READ_BYTES = 64 * 1024


class ControlClient:
    """A connection to the gateway whose control socket is at `path`. Raises `NoGatewayError` if none answers there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = Decoder(decode_reply)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.is_closed = False
        """True also once the connection has failed; a new client may find the gateway again."""
        try:
            self._sock.settimeout(CONNECT_SECONDS)
            self._sock.connect(os.fspath(path))
            peer = peer_of(self._sock)
        except OSError as error:
            self.close()
            raise NoGatewayError(f"no gateway answers at {path}: {error.strerror or error}") from error
        if peer.uid != os.geteuid():
            # Whoever listens there would learn what is sent, a visitor's cookie for one.
            self.close()
            raise NoGatewayError(f"{path} is served by user {peer.uid}, not by {os.geteuid()}")
        self.pid = peer.pid
        """The gateway's process id; 0 if it is in a PID namespace that we do not see."""

    def request(
        self,
        do: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
        timeout: float | None = ANSWER_SECONDS,
    ) -> dict[str, Any]:
        """Have a command carried out; the facts of its result.

        `timeout`: seconds that the gateway may say nothing; None for commands that wait for connections to end: whoever
        waits may interrupt. Raises `CommandError`, whose `exit_code` is the one that the gateway names.
        """
        self.send(do, arguments)
        self._sock.settimeout(timeout)
        while True:
            for reply in self._received():
                if isinstance(reply, Result):
                    return reply.facts
                if on_progress is not None:
                    on_progress(reply.text)

    def send(self, do: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Send a request whose replies `replies_nowait` will give. Raises `CommandError`."""
        try:
            data = encode(Request(do, dict(arguments or {})))
        except ControlError as error:
            raise CommandError(f"{do} cannot be sent: {error}") from error
        self._sock.settimeout(ANSWER_SECONDS)
        try:
            self._sock.sendall(data)
        except TimeoutError as error:
            raise self._lost(f"the gateway did not read within {ANSWER_SECONDS:g} s") from error
        except OSError:
            pass  # it has closed, but may have said why: the next receive tells

    def replies_nowait(self) -> Iterator[Progress | Result]:
        """Replies that have come, if `fileno()` is readable. Raises `CommandError` in the place of a `Failure`."""
        self._sock.settimeout(0)
        return self._received()

    def fileno(self) -> int:
        """For `select`."""
        return self._sock.fileno()

    def close(self) -> None:
        """Let the gateway go; what it was told to do it does. Idempotent."""
        self.is_closed = True
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _received(self) -> Iterator[Progress | Result]:
        """Receive once, and give what is whole then."""
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except TimeoutError as error:
            raise self._lost("the gateway does not answer") from error
        except OSError as error:
            raise self._lost(f"the connection to the gateway broke before it answered: {error.strerror}") from error
        if not data:
            raise self._lost("the gateway ended the connection before it said what became of the command")
        self._decoder.feed(data)
        try:
            while (reply := self._decoder.next_message()) is not None:
                yield _or_raise(reply)
        except ControlError as error:
            raise self._lost(f"the gateway's answer cannot be understood: {error}") from error

    def _lost(self, why: str) -> CommandError:
        self.close()
        return CommandError(why)


def _or_raise(reply: Reply) -> Progress | Result:
    if isinstance(reply, Failure):
        error = CommandError(reply.message)
        error.exit_code = reply.code
        raise error
    return reply
