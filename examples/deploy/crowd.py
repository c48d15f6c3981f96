"""Clients that number all that they send, and look at the numbers of all that comes: `Crowd`."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PAUSE = 0.5
"""Seconds between two echoes of a client. After every fourth it says something to its room."""

PATIENCE = 10.0
"""Seconds after which what has not come is lost."""

AT_ONCE = 50
"""Clients that connect in one moment."""

FAULTS = ("closed", "lost", "doubled", "reordered", "forgotten")


@dataclass
class Sight:
    """What all clients together have seen of one step."""

    faults: Counter[str]
    silence: float
    """The longest time in seconds that one of them has waited for an answer."""
    own_lag: float
    """How many seconds late this very program was at worst: so much of the silence may be its own."""
    versions: set[int]
    """Of the application, in each client's last answer."""


class Numbers:
    """What has come of 1, 2, 3, … from one sender. Who enters late begins with what comes first."""

    def __init__(self, faults: Counter[str]) -> None:
        self.faults = faults
        self.last = 0
        self.missing: set[int] = set()

    def came(self, number: int) -> None:
        if number > self.last:
            if self.last:
                self.missing.update(range(self.last + 1, number))
            self.last = number
        elif number in self.missing:
            self.missing.discard(number)
            self.faults["reordered"] += 1
        else:
            self.faults["doubled"] += 1

    def are_whole(self, sent: int) -> bool:
        return self.last == sent and not self.missing

    def give_up(self, sent: int) -> None:
        """Count as lost what has not come."""
        self.faults["lost"] += len(self.missing) + sent - self.last
        self.missing.clear()
        self.last = sent


class Client:
    """One visitor in a room. What happens to it is counted in `faults`."""

    def __init__(self, number: int, room: str, faults: Counter[str]) -> None:
        self.number = number
        self.room = room
        self.faults = faults
        self.said = 0
        self.version = 0
        self.silence = 0.0
        self.news = asyncio.Event()
        self.websocket: ClientConnection
        self.listening: asyncio.Task[None]

    async def enter(self, url: str) -> None:
        self.websocket = await connect(f"{url}/{self.room}", proxy=None, open_timeout=30)
        self.echoes = self.counted = 0
        self.asked_at: dict[int, float] = {}
        self.answers = Numbers(self.faults)
        self.heard: dict[int, Numbers] = defaultdict(lambda: Numbers(self.faults))
        self.listening = asyncio.create_task(self.listen())

    async def listen(self) -> None:
        try:
            async for message in self.websocket:
                self.came(json.loads(message))
                self.news.set()
        except ConnectionClosed:
            pass  # in another way than with 1000 or 1001, and counted all the same
        self.faults["closed"] += 1
        self.news.set()

    @property
    def is_out(self) -> bool:
        return self.listening.done()

    def came(self, message: dict[str, Any]) -> None:
        number = message["number"]
        if message["type"] == "say":
            self.heard[message["who"]].came(number)
            return
        self.answers.came(number)
        now = time.monotonic()
        self.silence = max(self.silence, now - self.asked_at.pop(number, now))
        self.version = message["version"]
        # The application counts in `conn.state`: what a worker has of us in its memory has to come along.
        self.faults["forgotten"] += message["count"] != self.counted + 1
        self.counted = message["count"]

    def longest_wait(self) -> float:
        """For an answer, those included that have not come yet."""
        if self.is_out or not self.asked_at:
            return self.silence
        return max(self.silence, time.monotonic() - min(self.asked_at.values()))

    async def echo(self) -> None:
        self.echoes += 1
        self.asked_at[self.echoes] = time.monotonic()
        await self.websocket.send(json.dumps({"type": "echo", "number": self.echoes}))

    async def say(self) -> None:
        self.said += 1
        await self.websocket.send(json.dumps({"type": "say", "number": self.said, "who": self.number}))

    async def talk(self) -> None:
        await asyncio.sleep(random.uniform(0, PAUSE))
        try:
            while True:
                for _ in range(4):
                    await self.echo()
                    await asyncio.sleep(PAUSE)
                await self.say()
        except ConnectionClosed:
            pass  # `listen` counts it


class Crowd:
    """All clients. They talk while something is done to the gateway, and tell then what they have seen of it."""

    def __init__(self, url: str, *, rooms: int) -> None:
        self.url = url
        self.rooms: list[list[Client]] = [[] for _ in range(rooms)]
        self.clients: list[Client] = []
        self.faults: Counter[str] = Counter()
        self.sight: Sight | None = None

    async def enter(self, count: int) -> None:
        """So many more, spread over the rooms."""
        numbers = range(len(self.clients), len(self.clients) + count)
        coming = [Client(number, f"room-{number % len(self.rooms)}", self.faults) for number in numbers]
        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*(client.enter(self.url) for client in coming[start : start + AT_ONCE]))
        for client in coming:
            self.rooms[client.number % len(self.rooms)].append(client)
        self.clients += coming

    async def leave(self) -> None:
        await asyncio.gather(*(client.websocket.close() for client in self.clients))
        await asyncio.gather(*(client.listening for client in self.clients))

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[None]:
        """Talk while the block runs. Then `sight` is what was seen."""
        lags = [0.0]
        tasks = [asyncio.create_task(client.talk()) for client in self.clients]
        tasks.append(asyncio.create_task(note_own_lag(lags)))
        try:
            yield
            await asyncio.sleep(PAUSE)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        silence = max(client.longest_wait() for client in self.clients)
        await self.settle()  # so many messages at once that it is no measure of anything
        self.sight = Sight(
            Counter(self.faults),
            silence,
            max(lags),
            {client.version for client in self.clients if not client.is_out},
        )
        await self.begin_anew()

    async def settle(self) -> None:
        """Each sends one more message of both kinds, so that the last one before it is missed if it was lost; then all
        is waited for that is under way. Who was closed is counted as that, and not for what it has not heard since."""
        for client in self.clients:
            if not client.is_out:
                await client.echo()
                await client.say()
        try:
            async with asyncio.timeout(PATIENCE):
                for client in self.clients:
                    while not client.is_out and not all(n.are_whole(sent) for n, sent in self.expected(client)):
                        client.news.clear()
                        await client.news.wait()
        except TimeoutError:
            pass  # what is missing now is lost
        for client in self.clients:
            if not client.is_out:
                for numbers, sent in self.expected(client):
                    numbers.give_up(sent)

    def expected(self, client: Client) -> Iterator[tuple[Numbers, int]]:
        """What it has of each sender's numbers, and how many that one has sent."""
        yield client.answers, client.echoes
        for who in self.rooms[client.number % len(self.rooms)]:
            yield client.heard[who.number], who.said

    async def begin_anew(self) -> None:
        """With nothing seen. Who was closed comes back, as clients do."""
        self.faults.clear()
        for client in self.clients:
            client.silence = 0.0
            if client.is_out:
                await client.enter(self.url)


async def note_own_lag(lags: list[float]) -> None:
    while True:
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        lags.append(time.monotonic() - due)
