"""Bots that play over real WebSockets, and check the physics that they see: a test, and the load test.

    python examples/game/bots.py http://127.0.0.1:8000 --bots 100 --matches 10 --hz 20 --seconds 10

They say what they have seen, and exit with 1 if anything was wrong. `late` is what the server says of its ticks; `gap`
how far apart snapshots came in here, beside `lag`, by which this very loop was late when nobody asked anything of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgpack
from pilot import hunt
from ship import STEP_SECONDS
from sight import Sight
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

MAX_SAMPLES = 100_000
"""Of each kind are kept for the percentiles; later ones are only counted."""

DEADLINE = 20.0
"""Seconds that opening a connection, or an answer, may take."""

FIRST_PAUSE, LAST_PAUSE = 0.2, 2.0
"""Seconds that a bot which was closed stays away at most: twice as many each time, until it hears something again."""

FINAL_CODES = {1008, 4001, 4002, 4003}
"""Coming back would end the same way: policy, the match is full, another window plays, nobody plays in this one."""

IDS_A_LOBBY = 100
"""So many are asked of one connection to the lobby, which allows twice as many at once."""


@dataclass
class Tally:
    """What all bots have seen together."""

    snapshots: int = 0
    inputs: int = 0
    closes: Counter[int] = field(default_factory=Counter)
    slots: dict[str, set[int]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    lates: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)


class Bot:
    """One player of the match `id`: hunts the nearest ship, comes back when it is closed, and looks on. It sends
    `hz` inputs a second; `random` only sets it apart from the others in time."""

    def __init__(self, url: str, id: str, tally: Tally, *, hz: float, random: random.Random) -> None:
        self.id = id
        self.ship: int | None = None
        """Its own; the same whenever it comes back."""
        self.score = 0
        self.tick = 0
        self.cookie: str | None = None
        self.is_playing = False
        self._connection: ClientConnection | None = None
        self._url = f"ws{url.removeprefix('http')}/match/{id}"
        self._tally = tally
        self._hz = hz
        self._random = random
        self._sequence = 0
        self._sight = Sight()
        self._pause = FIRST_PAUSE

    async def play(self) -> None:
        """Until it is cancelled, or closed for good: that is a violation."""
        while True:
            try:
                headers = {"Cookie": self.cookie} if self.cookie else {}
                async with connect(
                    self._url, additional_headers=headers, compression=None, open_timeout=DEADLINE, proxy=None
                ) as connection:
                    self._connection = connection
                    self._remember(connection)
                    await self._live(connection)
            except ConnectionClosed as closed:
                if self._noted(closed) in FINAL_CODES:
                    return
            except (InvalidHandshake, OSError, TimeoutError):  # refused, or lost before it was open
                self._tally.closes[0] += 1
            self._sight.comes_back()
            bound, self._pause = self._pause, min(LAST_PAUSE, 2 * self._pause)
            await asyncio.sleep(self._random.uniform(0, bound))

    def _noted(self, closed: ConnectionClosed) -> int:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        self._tally.closes[code] += 1
        if code in FINAL_CODES:
            self._tally.violations.append(f"{self.id}: closed with {code}, {reason!r}")
        return code

    def drop(self) -> None:
        """Lose the connection, as a tunnel or a lift does it."""
        if self._connection is not None:
            self._connection.transport.abort()

    def _remember(self, connection: ClientConnection) -> None:
        assert connection.response is not None
        cookie = connection.response.headers.get("Set-Cookie")
        self.cookie = cookie.partition(";")[0] if cookie else self.cookie

    async def _live(self, connection: ClientConnection) -> None:
        steering = asyncio.create_task(self._steer(connection))
        try:
            while True:  # not `async for`, which says nothing of a close with 1000 or 1001; pings end what is dead
                self._heard(msgpack.unpackb(await connection.recv()))
        finally:
            steering.cancel()
            self.is_playing = False

    async def _steer(self, connection: ClientConnection) -> None:
        await asyncio.sleep(self._random.random() / self._hz)  # all in their own step
        with contextlib.suppress(ConnectionClosed):  # whoever reads is told
            while True:
                do = hunt(self.ship or 0, self._sight.ships)
                self._sequence += 1
                await connection.send(msgpack.packb({"type": "input", "seq": self._sequence, "do": do}))
                self._tally.inputs += 1
                await asyncio.sleep(1 / self._hz)

    def _heard(self, message: dict[str, object]) -> None:
        self._pause = FIRST_PAUSE
        match message:
            case {"type": "welcome", "you": int(ship), "sequence": int(sequence)}:
                if self.ship not in (None, ship):
                    self._tally.violations.append(f"{self.id}: ship {self.ship} came back as {ship}")
                self.ship, self._sequence = ship, max(self._sequence, sequence)
                self._sight.own = ship
            case {"type": "snapshot"}:
                self._saw(message)

    def _saw(self, snapshot: dict[str, object]) -> None:
        tally, now = self._tally, time.perf_counter()
        tally.snapshots += 1
        gap = self._sight.gap(now)
        if gap is not None and len(tally.gaps) < MAX_SAMPLES:
            tally.gaps.append(abs(gap - STEP_SECONDS))
            tally.lates.append(float(str(snapshot["late"])) / 1000)
        tally.slots.setdefault(self.id, set()).add(int(str(snapshot["slot"])))
        tally.violations += [f"{self.id}: {violation}" for violation in self._sight.check(snapshot)]
        self.is_playing = True
        self.tick = self._sight.tick
        self.score = self._sight.score


async def minted(url: str, count: int) -> list[str]:
    """The ids of so many new matches, as a lobby gives them."""
    ids: list[str] = []
    while len(ids) < count:
        async with connect(f"ws{url.removeprefix('http')}/lobby", compression=None, proxy=None) as lobby:
            for _ in range(min(IDS_A_LOBBY, count - len(ids))):
                await lobby.send(msgpack.packb({"type": "new"}))
                while True:
                    async with asyncio.timeout(DEADLINE):
                        message = msgpack.unpackb(await lobby.recv())
                    if message["type"] == "minted":
                        break
                ids.append(message["id"])
    return ids


async def watch_lag(tally: Tally) -> None:
    """How late this loop is by itself, for timers like a tick's."""
    due = time.perf_counter()
    while True:
        due = max(due + STEP_SECONDS, time.perf_counter())
        await asyncio.sleep(due - time.perf_counter())
        if len(tally.lags) < MAX_SAMPLES:
            tally.lags.append(time.perf_counter() - due)


def percentile(samples: Sequence[float], part: float) -> float:
    """In milliseconds; NaN without samples."""
    return sorted(samples)[math.ceil(part * len(samples)) - 1] * 1000 if samples else math.nan


def summary(tally: Tally) -> str:
    """What to print."""
    rows = [f"{tally.snapshots} snapshots, {tally.inputs} inputs, closes {dict(tally.closes)}"]
    slots = Counter(slot for slots in tally.slots.values() for slot in slots)
    rows.append(f"matches by slot {dict(sorted(slots.items()))}")
    for name, samples in (("late", tally.lates), ("gap", tally.gaps), ("lag", tally.lags)):
        rows.append(f"{name:5} p50 {percentile(samples, 0.5):6.2f} ms   p99 {percentile(samples, 0.99):6.2f} ms")
    rows += [f"VIOLATION {violation}" for violation in tally.violations[:20]]
    return "\n".join([*rows, f"{len(tally.violations)} violations"])


async def run(url: str, *, bots: int, matches: int, hz: float, seconds: float) -> Tally:
    """Play for so many `seconds`, or until nobody can come back."""
    tally = Tally()
    ids = await minted(url, matches)
    players = [
        Bot(url, ids[number % matches], tally, hz=hz, random=random.Random(number)).play() for number in range(bots)
    ]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            watching = group.create_task(watch_lag(tally))
            await asyncio.gather(*players)
            watching.cancel()
    tally.violations += [f"{id} was on {slots}" for id, slots in tally.slots.items() if len(slots) > 1]
    tally.violations += [f"{id}: nobody has seen it" for id in ids[:bots] if id not in tally.slots]
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="http://HOST:PORT")
    parser.add_argument("--bots", type=int, default=20)
    parser.add_argument("--matches", type=int, default=4)
    parser.add_argument("--hz", type=float, default=20.0, help="inputs of each bot in a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    tally = asyncio.run(run(**vars(arguments)))
    print(summary(tally))
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
