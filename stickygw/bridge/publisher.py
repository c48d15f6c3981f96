"""The sending half of the Redis bridge: publishes of one loop turn in one pipeline, each sent at most once.

A PUBLISH is never repeated: whether a pipeline without an answer was carried out, nobody knows, and twice is
worse than not at all. What was lost is counted under ``bridge_lost`` with one of the `Loss` reasons.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from stickygw.config.redacted import line_of
from stickygw.observability.counters import Counters
from stickygw.reconnect import SECOND_LOOK_SECONDS, Backoff, Standing, opened

log = logging.getLogger("stickygw.bridge")

MAX_QUEUED_MESSAGES = 10_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Bounds of what is not answered yet. What comes on top is dropped."""

MAX_PIPELINE_MESSAGES = 1_000
"""So many messages share one pipeline and its time limit at most."""

MAX_PIPELINE_BYTES = 1024 * 1024
"""And so many bytes, but for one message that is longer: a link of 100 Mbit/s takes them in a tenth of the time."""

PIPELINE_SECONDS = 1.0
"""A pipeline that is not answered by then is lost, and so is its connection."""

REFUSED_LOG_SECONDS = 60.0
"""How often messages that the store refuses are worth a line."""


class Loss(StrEnum):
    """Why a message could not be bridged."""

    QUEUE_FULL = "queue_full"
    """More was published than the store takes."""
    AWAY = "away"
    """There is no connection; the message was never sent."""
    UNCERTAIN = "uncertain"
    """It was sent, and the connection ended without an answer."""
    REFUSED = "refused"
    """The store said no."""


class Publisher:
    """Sends messages to channels of a store, in order.

    `on_lost` is called with the channel of each message that is lost and why, `on_connected` when messages can be sent,
    for the first time or again. They must neither wait nor raise.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        counters: Counters,
        random: Random,
        on_lost: Callable[[bytes, Loss], None] = lambda channel, why: None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._counters = counters
        self._on_lost = on_lost
        self._on_connected = on_connected
        self._backoff = Backoff(random)
        self._queue: deque[tuple[bytes, bytes, bool]] = deque()  # channels, commands, whether that is a message
        self._unanswered: deque[tuple[bytes, int, bool]] = deque()  # the pipeline under way: the same with sizes
        self._pending_bytes = 0
        self._has_work = asyncio.Event()
        self._is_answered = asyncio.Event()
        self._told_refused_at = -math.inf
        self._published = 0  # into the queue, ever
        self._settled = asyncio.Event()  # set, and replaced, each time that messages are answered or lost
        self._standing = Standing("bridge publisher", self._session, self._backoff)
        self.connected = asyncio.Event()

    def start(self) -> None:
        """Connect and stay connected, in a task of its own."""
        self._standing.start()

    async def stop(self) -> None:
        """Wait up to `PIPELINE_SECONDS` for what is queued, then end the task and the connection."""
        if not self._standing.is_started:
            return
        try:
            async with asyncio.timeout(PIPELINE_SECONDS):
                await self.wait_sent()
        except TimeoutError:
            pass  # what is left is counted as lost where the session ends
        await self._standing.stop()

    def publish(self, channel: bytes, data: bytes, *, is_message: bool = True) -> None:
        """Send `data` to `channel` in this loop turn's pipeline, or drop it, and count it if it `is_message`."""
        if not self.connected.is_set():
            self._lose(Loss.AWAY, [(channel, is_message)])
            return
        # Packed by hand: 0.2 µs where redis-py's packing of arbitrary arguments takes 1.6.
        command = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            len(channel),
            channel,
            len(data),
            data,
        )
        if self.backlog >= MAX_QUEUED_MESSAGES or self._pending_bytes + len(command) > MAX_QUEUED_BYTES:
            self._lose(Loss.QUEUE_FULL, [(channel, is_message)])
            return
        self._queue.append((channel, command, is_message))
        self._pending_bytes += len(command)
        self._published += 1
        self._has_work.set()

    @property
    def backlog(self) -> int:
        """How many messages are not answered yet."""
        return len(self._queue) + len(self._unanswered)

    async def wait_sent(self) -> None:
        """Return when all that was published before the call is answered, or lost.

        The queue's bound and a pipeline's time limits bound it, whatever is published meanwhile.
        """
        last = self._published
        while self._published - self.backlog < last:  # the first published is the first settled
            await self._settled.wait()

    async def _session(self) -> None:
        async with opened(self._connect) as connection:
            self._backoff.succeeded("bridge publisher")
            self.connected.set()
            self._on_connected()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(connection))
                    tasks.create_task(self._write(connection))
            finally:
                self.connected.clear()
                self._lose_all()

    async def _read(self, connection: AbstractConnection) -> None:
        """Read always, so that the end of an idle connection is noticed before the next message is lost to
        it."""
        while True:
            try:
                await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            except ResponseError as error:
                self._refused(error)
            self._pending_bytes -= self._unanswered.popleft()[1]
            if not self._unanswered:
                self._is_answered.set()
                self._tell_settled()

    async def _write(self, connection: AbstractConnection) -> None:
        """One pipeline at a time; what is published meanwhile makes the next one."""
        while True:
            await self._has_work.wait()
            pipeline = self._take_pipeline()
            async with asyncio.timeout(PIPELINE_SECONDS):
                await connection.send_packed_command(pipeline, check_health=False)
            try:
                async with asyncio.timeout(PIPELINE_SECONDS):
                    await self._is_answered.wait()
            except TimeoutError:
                async with asyncio.timeout(SECOND_LOOK_SECONDS):
                    await self._is_answered.wait()

    def _take_pipeline(self) -> bytes:
        pipeline: list[tuple[bytes, bytes, bool]] = []
        size = 0
        while self._queue and len(pipeline) < MAX_PIPELINE_MESSAGES:
            size += len(self._queue[0][1])
            if pipeline and size > MAX_PIPELINE_BYTES:
                break
            pipeline.append(self._queue.popleft())
        if not self._queue:
            self._has_work.clear()
        self._unanswered.extend((channel, len(command), is_message) for channel, command, is_message in pipeline)
        self._is_answered.clear()
        return b"".join([command for _, command, _ in pipeline])

    def _refused(self, error: ResponseError) -> None:
        channel, _, is_message = self._unanswered[0]
        self._lose(Loss.REFUSED, [(channel, is_message)])
        now = asyncio.get_running_loop().time()
        # Of numbers alone nothing is said: they are tried again and again.
        if is_message and now - self._told_refused_at >= REFUSED_LOG_SECONDS:
            self._told_refused_at = now
            log.warning("bridge publisher: the store refuses messages, they stay on this worker: %s", line_of(error))

    def _lose(self, why: Loss, lost: Sequence[tuple[bytes, bool]]) -> None:
        """`lost`: channels, and whether it was a message."""
        if count := sum(is_message for _, is_message in lost):
            self._counters.add("bridge_lost", why, count)
        for channel, _ in lost:
            self._on_lost(channel, why)

    def _lose_all(self) -> None:
        sent, queued = [one[::2] for one in self._unanswered], [one[::2] for one in self._queue]
        if sent or queued:
            log.warning(
                "bridge publisher: %d messages sent without an answer and %d queued are lost", len(sent), len(queued)
            )
        self._lose(Loss.UNCERTAIN, sent)
        self._lose(Loss.AWAY, queued)
        self._queue.clear()
        self._unanswered.clear()
        self._pending_bytes = 0
        self._has_work.clear()
        self._tell_settled()

    def _tell_settled(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()
