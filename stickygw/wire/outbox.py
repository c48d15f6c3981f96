"""Queues of messages that carry payloads, bounded: for a link that is full, and for a receiver that is busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

MAX_WAITING_MESSAGES = 1024
MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Bounds of each queue, the bytes in payloads."""


class _HasPayload(Protocol):
    @property
    def payload(self) -> bytes: ...


Waiting = TypeVar("Waiting", bound=_HasPayload)


class WaitingMessages(Generic[Waiting]):
    """Messages in order, at most `MAX_WAITING_MESSAGES` with `MAX_WAITING_BYTES`."""

    __slots__ = ("_bytes", "_messages")

    def __init__(self) -> None:
        self._messages: deque[Waiting] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Waiting) -> bool:
        """Put `message` last; False: it does not fit."""
        size = len(message.payload)
        if len(self._messages) >= MAX_WAITING_MESSAGES or self._bytes + size > MAX_WAITING_BYTES:
            return False
        self._messages.append(message)
        self._bytes += size
        return True

    @property
    def first(self) -> Waiting:
        """The oldest message; there must be one."""
        return self._messages[0]

    def take(self) -> Waiting:
        """Remove and return the oldest message; there must be one."""
        message = self._messages.popleft()
        self._bytes -= len(message.payload)
        return message

    def take_all(self) -> list[Waiting]:
        """Remove and return all of them, the oldest first."""
        messages = list(self._messages)
        self._messages.clear()
        self._bytes = 0
        return messages


class Outbox(Generic[Waiting]):
    """What goes out on one link: at once while it takes messages, else in order when it does again.

    `send` and `wait_writable` are the link's; `on_sent` is called when messages that waited have gone.
    """

    __slots__ = ("_is_waiting", "_on_sent", "_send", "_wait_writable", "_waiting", "posted")

    def __init__(
        self,
        *,
        send: Callable[[Waiting], bool],
        wait_writable: Callable[[Callable[[], None]], None],
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        self._send = send
        self._wait_writable = wait_writable
        self._on_sent = on_sent
        self._waiting: WaitingMessages[Waiting] = WaitingMessages()
        self._is_waiting = False
        self.posted = 0
        """Messages that were sent or wait, ever."""

    def post(self, message: Waiting) -> bool:
        """Send `message`, or keep it until the link takes it. False: too many wait, it was not kept."""
        if (self._waiting or not self._send(message)) and not self._waiting.add(message):
            return False
        self.posted += 1
        self._wait()
        return True

    @property
    def sent(self) -> int:
        """How many of `posted` wait no more."""
        return self.posted - len(self._waiting)

    def clear(self) -> None:
        """Forget what waits: the link is gone."""
        self._waiting.take_all()

    def _wait(self) -> None:
        if self._waiting and not self._is_waiting:
            self._is_waiting = True
            self._wait_writable(self._flush)

    def _flush(self) -> None:
        self._is_waiting = False
        while self._waiting and self._send(self._waiting.first):
            self._waiting.take()
        self._wait()
        self._on_sent()
