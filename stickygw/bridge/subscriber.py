"""The receiving half of the Redis bridge: one connection that is always read.

Not redis-py's PubSub, which reconnects by itself and so hides that messages were missed. Here a connection's
end is seen, all channels are asked for again, and a gap is told.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from random import Random

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError

from stickygw.bridge.base import CONFIRM_SECONDS
from stickygw.bridge.subscriptions import Subscriptions
from stickygw.reconnect import SECOND_LOOK_SECONDS, Backoff, Standing, opened

log = logging.getLogger("stickygw.bridge")

PING_SECONDS = 2.0
"""Nothing heard between two pings: the server is dead or stopped, whatever TCP believes. So that is noticed
within twice this time. It is not the silence that is measured: while our own loop is blocked, nobody pings
either."""

ANSWER_SECONDS = 1.0
"""How long an answer to `Subscriber.ping` is waited for."""

CHANNELS_PER_COMMAND = 500
MESSAGES_PER_TURN = 64
"""After so many replies the loop turns: what is buffered is read without waiting, and would starve the
connections."""


class Subscriber:
    """Channels of a store. `on_message(channel, data)` and `on_gap(channels)` must neither wait nor raise."""

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[list[bytes]], None],
        random: Random,
    ) -> None:
        self._connect = connect
        self._on_message = on_message
        self._on_gap = on_gap
        self._backoff = Backoff(random)
        self._subscriptions = Subscriptions()
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._has_changes = asyncio.Event()
        self._heard_at = 0.0
        self._pings: list[_Ping] = []  # asked for, and not sent
        self._pinged: deque[list[_Ping]] = deque()  # for each PING without an answer, whose it is
        self._standing = Standing("bridge subscriber", self._session, self._backoff)
        self.connected = asyncio.Event()
        """Set while every wanted channel of the connection's beginning is subscribed."""

    def start(self) -> None:
        """Connect and stay connected, in a task of its own."""
        self._standing.start()

    async def stop(self) -> None:
        """End the task and the connection."""
        await self._standing.stop()

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """See `Bridge.subscribe`. Calls of one loop turn go out together."""
        self._subscriptions.want(channel)
        self._has_changes.set()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self._subscriptions.is_confirmed(channel):
            done.set_result(None)
        elif not self.connected.is_set():
            self._subscriptions.owe(channel)
            done.set_result(None)
        else:
            # A future for each caller: a cancelled caller cancels what it awaits.
            self._waiting.setdefault(channel, set()).add(done)
            timer = loop.call_later(CONFIRM_SECONDS, self._give_up, channel, done)
            done.add_done_callback(lambda _: self._forget_wait(channel, done, timer))
        return done

    def unsubscribe(self, channel: bytes) -> None:
        """See `Bridge.unsubscribe`."""
        self._subscriptions.drop(channel)
        self._has_changes.set()
        self._end_waits(channel)

    def is_heard(self, channel: bytes) -> bool:
        """See `Bridge.is_heard`."""
        return self._subscriptions.is_settled(channel)

    def ping(self, callback: Callable[[bool], None]) -> None:
        """See `Bridge.ping`: the PING stands behind all that was subscribed before. Of one loop turn, all have one."""
        if not self.connected.is_set():
            callback(False)
            return
        ping = _Ping(callback)
        ping.timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._give_up_ping, ping)
        self._pings.append(ping)
        self._has_changes.set()

    def _give_up_ping(self, ping: _Ping) -> None:
        self._subscriptions.owe_unconfirmed()
        ping.answer(False)

    async def _session(self) -> None:
        async with opened(self._connect) as connection:
            self._heard_at = asyncio.get_running_loop().time()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._read(connection))
                    tasks.create_task(self._write(connection))
            finally:
                self.connected.clear()
                self._subscriptions.lost()
                unanswered = [ping for pings in (*self._pinged, self._pings) for ping in pings]
                self._pinged.clear()
                self._pings = []
                for ping in unanswered:
                    ping.answer(False)
                for channel in tuple(self._waiting):
                    self._end_waits(channel)

    async def _read(self, connection: AbstractConnection) -> None:
        clock = asyncio.get_running_loop().time
        read = 0
        while True:
            reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            self._heard_at = clock()
            match reply:
                case [b"message", bytes(channel), bytes(data)]:
                    self._on_message(channel, data)
                case [b"subscribe" | b"unsubscribe", bytes(channel), _]:
                    self._answered(channel)
                case [b"pong", _] | b"PONG":  # RESP2 answers differently with and without subscriptions
                    self._ponged()
                case _:
                    raise ConnectionError(f"a reply that nobody asked for: {str(reply)[:100]}")
            read += 1
            if read % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _write(self, connection: AbstractConnection) -> None:
        clock = asyncio.get_running_loop().time
        pinged_at, ping_at = 0.0, clock()
        while True:
            self._has_changes.clear()
            commands = self._changes()
            is_time = clock() >= ping_at
            if is_time:
                await self._check_heard_since(pinged_at)
                # The first one stands behind all SUBSCRIBEs of a new connection: its answer says they are
                # done.
                pinged_at = clock()
                ping_at = pinged_at + PING_SECONDS
            if is_time or self._pings:
                commands.append((b"PING",))
                self._pinged.append(self._pings)
                self._pings = []
            if commands:
                async with asyncio.timeout(2 * PING_SECONDS):  # it waits while a stopped server's buffers are full
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            try:
                async with asyncio.timeout_at(ping_at):
                    await self._has_changes.wait()
            except TimeoutError:
                pass  # time to ping

    async def _check_heard_since(self, pinged_at: float) -> None:
        if self._heard_at < pinged_at:
            await asyncio.sleep(SECOND_LOOK_SECONDS)
        if self._heard_at < pinged_at:
            raise ConnectionError(f"no answer to a ping for {PING_SECONDS:g} s")

    def _changes(self) -> list[tuple[bytes, ...]]:
        subscribe, unsubscribe = self._subscriptions.take_changes()
        return [
            (command, *channels[start : start + CHANNELS_PER_COMMAND])
            for command, channels in ((b"UNSUBSCRIBE", unsubscribe), (b"SUBSCRIBE", subscribe))
            for start in range(0, len(channels), CHANNELS_PER_COMMAND)
        ]

    def _answered(self, channel: bytes) -> None:
        if not self._subscriptions.answered(channel):
            return
        self._end_waits(channel)
        if self.connected.is_set() and self._subscriptions.settle(channel):
            self._on_gap([channel])

    def _ponged(self) -> None:
        pings = self._pinged.popleft() if self._pinged else []
        for ping in pings:
            ping.answer(True)
        if self.connected.is_set():
            return
        self._backoff.succeeded("bridge subscriber")
        self.connected.set()
        channels = self._subscriptions.settle_all()
        if channels:
            self._on_gap(channels)

    def _give_up(self, channel: bytes, done: asyncio.Future[None]) -> None:
        self._subscriptions.owe(channel)
        if not done.done():
            done.set_result(None)

    def _end_waits(self, channel: bytes) -> None:
        for done in self._waiting.pop(channel, ()):
            if not done.done():
                done.set_result(None)

    def _forget_wait(self, channel: bytes, done: asyncio.Future[None], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        waiting = self._waiting.get(channel)
        if waiting is not None:
            waiting.discard(done)
            if not waiting:
                del self._waiting[channel]


class _Ping:
    """Somebody who waits for an answer, and is told once."""

    def __init__(self, callback: Callable[[bool], None]) -> None:
        self._callback: Callable[[bool], None] | None = callback
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, is_answered: bool) -> None:
        """Tell it. Idempotent."""
        callback, self._callback = self._callback, None
        if self.timer is not None:
            self.timer.cancel()
        if callback is not None:
            try:
                callback(is_answered)
            except Exception:
                log.exception("bridge: what was to be done after a ping raised")
