"""Takes connections from the listeners, a bounded number a wake-up, and steps back when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from stickygw.observability.counters import Counters
from stickygw.primary.listener import Listener
from stickygw.wire.http_answer import answer

log = logging.getLogger("stickygw.accept")

MAX_ACCEPTS_PER_WAKE = 64
"""After so many the loop turns, so that a storm of newcomers starves nobody who is here."""

PAUSE_SECONDS = 0.15
"""How long accepting rests when descriptors or memory ran out. A level-triggered listener would spin meanwhile."""

LOG_EVERY_SECONDS = 1.0

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CROWDED = answer(503, b"The gateway has no descriptor left. Try again soon.\n", fields=[("Retry-After", "2")])


class Acceptor:
    """Calls `on_accepted(sock, address, listener)` for each connection, from `start()` until `close()`.

    The callee owns `sock`. Where accepting fails for want of descriptors or memory, one connection at the head of
    the queue is answered 503 with a descriptor kept for that, and accepting rests for 150 ms.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        on_accepted: Callable[[socket.socket, Any, Listener], None],
        counters: Counters,
    ) -> None:
        self._listeners = listeners
        self._on_accepted = on_accepted
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._spare = _spare_descriptor()
        self._pause: asyncio.TimerHandle | None = None
        self._logged_at = float("-inf")
        self._is_accepting = False

    def start(self) -> None:
        """Begin, or go on, to accept; once closed, nothing."""
        if not self._listeners:
            return
        if self._spare < 0:
            self._spare = _spare_descriptor()
        self._pause = None
        self._is_accepting = True
        for listener in self._listeners:
            self._loop.add_reader(listener.sock.fileno(), self._accept_some, listener)

    def pause(self) -> None:
        """Accept nobody until `start`: who comes waits in the kernel's queue."""
        self._rest()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def close(self) -> None:
        """Accept no more and close the listeners: their waiting connections are refused by the kernel. Idempotent."""
        self.pause()
        for listener in self._listeners:
            listener.close()
        self._listeners = ()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _rest(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.sock.fileno())

    def _accept_some(self, listener: Listener) -> None:
        accept = listener.sock.accept
        for _ in range(MAX_ACCEPTS_PER_WAKE):
            if not self._is_accepting:
                return
            try:
                sock, address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._step_back(listener, error)
                    return
                # ECONNABORTED and the like (accept(2)): this connection failed, the next one may not.
                log.debug("accept failed: %s", error)
                continue
            self._on_accepted(sock, address, listener)

    def _step_back(self, listener: Listener, error: OSError) -> None:
        self._counters.add("accept_pauses", errno.errorcode.get(error.errno or 0, ""))
        now = self._loop.time()
        if now - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = now
            log.error("cannot accept: %s; resting %d ms at a time", error.strerror, PAUSE_SECONDS * 1000)
        self._turn_one_away(listener)
        self._rest()
        self._pause = self._loop.call_later(PAUSE_SECONDS, self.start)

    def _turn_one_away(self, listener: Listener) -> None:
        """Answer the first in the queue with the spare descriptor, which is then had back."""
        if self._spare < 0:
            return
        os.close(self._spare)
        self._spare = -1
        try:
            sock, _ = listener.sock.accept()
        except OSError as error:  # no one waits any more, or memory is what is missing
            log.debug("the spare descriptor was no help: %s", error)
        else:
            self._counters.add("refusals", "no_descriptor")
            with sock:
                _answer_now(sock)
        self._spare = _spare_descriptor()


def _spare_descriptor() -> int:
    """A descriptor to give up in need; -1 when there is none to be had."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _answer_now(sock: socket.socket) -> None:
    """503 without waiting for anything. What has come is read first: closing over unread bytes sends an RST."""
    sock.setblocking(False)
    try:
        sock.recv(65536)
    except BlockingIOError:
        pass  # nothing has come yet
    except OSError as error:
        log.debug("turned away: %s", error)
        return
    try:
        sock.send(_CROWDED)
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:  # the client is gone
        log.debug("turned away: %s", error)
