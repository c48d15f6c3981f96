"""The bots of examples/game against a server that is not the game: what they survive, and what ends them."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, islice

import msgpack
import pytest
from support.game_example import GAME_FOLDER, bots
from support.waiting import wait_until
from websockets.asyncio.server import ServerConnection, serve

Handler = Callable[[ServerConnection], Awaitable[None]]

SECONDS = 30.0
"""For what should take milliseconds, on a machine that has better things to do."""


class Hurried(random.Random):
    """Chooses no pause at all, and remembers how long they might have been."""

    def __init__(self) -> None:
        super().__init__(1)
        self.bounds: list[float] = []

    def uniform(self, a: float, b: float) -> float:
        self.bounds.append(b)
        return a


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """One that does with each WebSocket what `handler` does; its URL."""
    async with serve(handler, "127.0.0.1", 0) as serving:
        yield f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def playing(url: str) -> AsyncIterator[tuple[bots.Tally, Hurried]]:
    """One bot that plays there until the context ends."""
    tally, hurried = bots.Tally(), Hurried()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bots.Bot(url, "7", tally, hz=20, random=hurried).play())
        yield tally, hurried
        task.cancel()


async def test_a_bot_counts_closes_of_which_the_library_makes_no_error() -> None:
    codes = [1000, 1001]

    async def leave(connection: ServerConnection) -> None:
        await connection.close(codes.pop(0) if codes else 1013)

    async with server(leave) as url, playing(url) as (tally, _):
        await wait_until(lambda: tally.closes[1013], seconds=SECONDS)
        assert tally.closes[1000] == tally.closes[1001] == 1
        assert not tally.violations


@pytest.mark.parametrize("code", [1008, 4001, 4002, 4003])
async def test_a_bot_that_is_closed_for_good_does_not_come_again_and_says_so(code: int) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.close(code, "the match is full")

    tally = bots.Tally()
    async with server(refuse) as url:
        async with asyncio.timeout(SECONDS):
            await bots.Bot(url, "7", tally, hz=20, random=Hurried()).play()
    assert tally.closes == {code: 1}
    assert tally.violations == [f"7: closed with {code}, 'the match is full'"]


async def test_a_run_in_which_nobody_may_play_fails_as_soon_as_all_know() -> None:
    async def full(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == "/lobby":
            await connection.recv()
            await connection.send(msgpack.packb({"type": "minted", "id": "7"}))
        else:
            await connection.close(4001, "the match is full")

    async with server(full) as url:
        command = [sys.executable, str(GAME_FOLDER / "bots.py"), url, "--bots", "2", "--matches", "1"]
        run = partial(subprocess.run, capture_output=True, text=True, timeout=SECONDS, check=False)
        done = await asyncio.to_thread(run, [*command, "--seconds", "3600"])
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("VIOLATION 7: closed with 4001, 'the match is full'") == 2


async def mint(lobby: ServerConnection, ids: Iterator[int]) -> None:
    """What a lobby does: each message is answered with the next id."""
    async for _ in lobby:
        await lobby.send(msgpack.packb({"type": "minted", "id": str(next(ids))}))


async def test_a_match_that_nobody_has_seen_is_a_violation() -> None:
    """Of three in which two bots play, one is not shown to its bot, and one has no bot."""
    ids = count(1)
    snapshot = {"type": "snapshot", "tick": 1, "ships": [], "shots": [], "late": 0.0, "skipped": 0, "slot": 0}

    async def play(connection: ServerConnection) -> None:
        assert connection.request is not None
        match connection.request.path:
            case "/lobby":
                await mint(connection, ids)
            case "/match/1":
                await connection.send(msgpack.packb(snapshot))
                await connection.send(msgpack.packb(snapshot | {"tick": 2}))
        await connection.close(1008, "enough")

    async with server(play) as url:
        tally = await bots.run(url, bots=2, matches=3, hz=20, seconds=SECONDS)
    assert [wrong for wrong in tally.violations if "closed with" not in wrong] == ["2: nobody has seen it"]


async def test_many_ids_are_asked_of_several_connections_to_the_lobby() -> None:
    """The example's closes one that asks too much."""
    ids, visits = count(1), 0

    async def lobby(connection: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        await mint(connection, islice(ids, 100))

    async with server(lobby) as url, asyncio.timeout(SECONDS):
        assert await bots.minted(url, 250) == [str(number) for number in range(1, 251)]
    assert visits == 3


async def test_a_bot_survives_connections_that_are_lost_in_their_handshake() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, playing(url) as (tally, _):
        await wait_until(lambda: tally.closes[0] > 2, seconds=SECONDS)


async def test_a_bot_tries_for_hours_and_never_waits_longer_than_two_seconds() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: each attempt is refused at once
        async with playing(f"http://127.0.0.1:{nobody.getsockname()[1]}") as (tally, hurried):
            await wait_until(lambda: tally.closes[0] > 1100, seconds=SECONDS)  # 2.0**1024 is more than a float can be
    assert hurried.bounds[:5] == [0.2, 0.4, 0.8, 1.6, 2.0]
    assert set(hurried.bounds[4:]) == {2.0}


async def test_only_a_message_shortens_a_bots_pauses() -> None:
    visits = 0

    async def falter(connection: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        if visits == 4:
            await connection.send(msgpack.packb({"type": "roster", "names": []}))
        await connection.close(1013)

    async with server(falter) as url, playing(url) as (tally, hurried):
        await wait_until(lambda: tally.closes[1013] > 5, seconds=SECONDS)
        assert hurried.bounds[:5] == [0.2, 0.4, 0.8, 0.2, 0.4]
