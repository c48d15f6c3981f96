"""A reload, and a slot that is given up, move what an application keeps for an affinity key, a match, together with the
key's connections."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.adoption import kill_primary, settled, start_again
from support.client import gather_bounded
from support.gateway import Gateway
from support.steering import command
from support.waiting import wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from stickygw.errors import ExitCode
from stickygw.routing.home import home_of_key
from stickygw.routing.keys import parse_key
from stickygw.types import Slot

APP = Path(__file__).parents[1] / "apps" / "matches.py"
MATCHES = f"{APP}:app"
MATCH_IN_QUERY = ("--key", "query:match", "--set", "compression=false")
BY_MATCH = ("--key", "path:/match/{id}", "--set", "compression=false")
ANSWER_SECONDS = 20.0


class Player:
    """One client in a match, who sends one message at a time; `counts` are what its answers told."""

    def __init__(self, match: str, client: ClientConnection, entered: dict[str, Any]) -> None:
        self.match = match
        self.entered = entered
        self._client = client
        self.answers: list[dict[str, Any]] = []

    async def play(self, message: object = None) -> dict[str, Any]:
        """Count one on."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._client.send(json.dumps(message))
            self.answers.append(json.loads(await self._client.recv()))
        assert self.answers[-1]["asked"] == message
        return self.answers[-1]

    async def play_on(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            await self.play(len(self.answers))
            await asyncio.sleep(0.005)

    async def wait_closed(self) -> int:
        """The code of the close."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._client.wait_closed()
        assert self._client.close_code is not None
        return self._client.close_code


@asynccontextmanager
async def players(gateway: Gateway) -> AsyncIterator[Any]:
    """What opens one more; all are gone in the end."""
    found: list[ClientConnection] = []

    async def enter(match: str) -> Player:
        url = f"ws://127.0.0.1:{gateway.port}/match/{match}?match={match}"
        client = await connect(url, compression=None, proxy=None)
        found.append(client)
        return Player(match, client, json.loads(await client.recv()))

    try:
        yield enter
    finally:
        await asyncio.gather(*(client.close() for client in found))


@asynccontextmanager
async def playing_on(found: list[Player]) -> AsyncIterator[None]:
    """All of them play as long as the context lasts."""
    stop = asyncio.Event()
    playing = asyncio.gather(*(player.play_on(stop) for player in found))
    try:
        yield
    finally:
        stop.set()
        await playing


async def reload(gateway: Gateway) -> str:
    done = await command(gateway, "reload")
    assert done.returncode == ExitCode.OK, done
    return done.stdout.rpartition("; ")[2].strip()


def assert_one_match(of_match: list[Player]) -> None:
    """Its count has neither jumped nor fallen: each number was told once."""
    counts = sorted(answer["count"] for player in of_match for answer in player.answers)
    assert counts == list(range(1, len(counts) + 1))
    for player in of_match:
        own = [answer["count"] for answer in player.answers]
        assert own == sorted(own)
    assert len({answer["born_in"] for player in of_match for answer in player.answers}) == 1


@pytest.mark.long
async def test_matches_move_with_all_their_players_and_count_on() -> None:
    with Gateway(MATCHES, *BY_MATCH, workers=2) as gateway:
        async with players(gateway) as enter:
            names = [f"m{number}" for number in range(20)]
            found: list[Player] = await gather_bounded(20, *(enter(name) for name in names * 5))
            stop = asyncio.Event()
            playing = [asyncio.create_task(player.play_on(stop)) for player in found]
            said = []
            for _ in range(3):
                reloading = asyncio.create_task(reload(gateway))
                while not reloading.done():
                    late = await enter(names[len(found) % 20])
                    found.append(late)
                    playing.append(asyncio.create_task(late.play_on(stop)))
                    await asyncio.sleep(0.1)
                said.append(await reloading)
            stop.set()
            await asyncio.gather(*playing)
            by_match = {name: [player for player in found if player.match == name] for name in names}
            for of_match in by_match.values():
                for player in of_match:
                    last = await player.play("last")
                    assert last["generation"] == 4
                    assert last["moves"] == 3
                assert_one_match(of_match)
                assert len({player.answers[-1]["pid"] for player in of_match}) == 1
            assert [text for text in said if not text.endswith(" connections moved, 0 closed")] == []
        assert "Traceback" not in gateway.log
        assert "ERROR" not in gateway.log


@pytest.mark.long
async def test_who_comes_to_a_match_that_waits_for_a_handler_comes_to_the_same_one() -> None:
    with Gateway(MATCHES, *BY_MATCH, workers=1) as gateway:
        async with players(gateway) as enter:
            first = await enter("a")
            await first.play()
            slow = asyncio.create_task(first.play("slow"))
            reloading = asyncio.create_task(reload(gateway))
            generation = 1
            while generation == 1:
                other = await enter("elsewhere")
                generation = other.entered["generation"]
            second = await enter("a")
            assert second.entered["born_in"] == first.entered["pid"]
            assert second.entered["pid"] != first.entered["pid"]
            assert second.entered["entered"] == 2
            await slow
            await first.play()
            await second.play()
            assert_one_match([first, second])
            assert "0 closed" in await reloading


async def test_a_match_whose_players_are_all_away_for_a_moment_moves_too() -> None:
    with Gateway(MATCHES, *BY_MATCH, workers=1) as gateway:
        async with players(gateway) as enter:
            player = await enter("a")
            await player.play()
        assert await reload(gateway) == "generation 2 runs in 1 slot"
        async with players(gateway) as enter:
            again = await enter("a")
            assert again.entered["entered"] == 1
            assert again.entered["moves"] == 1
            assert again.entered["born_in"] == player.entered["pid"]


async def test_players_of_a_match_that_the_new_code_refuses_are_closed_and_counted(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    with Gateway(MATCHES, *BY_MATCH, workers=1, environment={"REFUSING": str(refusing)}) as gateway:
        async with players(gateway) as enter:
            found = [await enter("a"), await enter("a"), await enter("b")]
            refusing.touch()
            done = await command(gateway, "reload")
            assert "3 refused by the new code" in done.stderr
            assert done.stdout.endswith("; 0 connections moved, 3 closed\n"), done
            for player in found:
                assert await player.wait_closed() == 1012
            with pytest.raises(ConnectionClosed):
                await found[0].play()
        await wait_until(lambda: "on_key_in raised" in gateway.log)


async def test_matches_of_a_slot_that_is_scaled_away_go_on_where_their_keys_lead() -> None:
    with Gateway(MATCHES, *MATCH_IN_QUERY, workers=3) as gateway:
        async with players(gateway) as enter:
            names = [f"m{number}" for number in range(24)]
            found: list[Player] = await gather_bounded(20, *(enter(name) for name in names * 2))
            by_match = {name: [player for player in found if player.match == name] for name in names}
            was_in = {player.match: player.entered["slot"] for player in found}
            assert set(was_in.values()) == {0, 1, 2}
            async with playing_on(found):
                await wait_until(lambda: all(player.answers for player in found))
                done = await command(gateway, "scale", "2")
            of_slot_2 = [name for name in names if was_in[name] == 2]
            assert done.stdout == f"2 slots, 3 before; {2 * len(of_slot_2)} connections moved, 0 closed\n", done
            for name, of_match in by_match.items():
                of_match.append(await enter(name))  # who comes now meets the others
                key = parse_key("query:match").for_value(name.encode())
                assert key is not None
                slot = home_of_key(key, [Slot(0), Slot(1)]) if name in of_slot_2 else was_in[name]
                for player in of_match:
                    last = await player.play("last")
                    assert (last["slot"], last["moves"]) == (slot, int(name in of_slot_2))
                assert_one_match(of_match)
                assert len({player.answers[-1]["pid"] for player in of_match}) == 1
            # Nobody but the worker that has gone was asked for a key.
            assert sorted(re.findall(r"\bout (m\d+)", gateway.log)) == sorted(of_slot_2)
            assert sorted(re.findall(r"\bin (m\d+) ", gateway.log)) == sorted(of_slot_2)
        assert "Traceback" not in gateway.log


@pytest.mark.long
async def test_a_reload_by_the_next_primary_moves_the_matches_of_the_workers_it_has_adopted() -> None:
    with Gateway(MATCHES, *MATCH_IN_QUERY, workers=2) as gateway:
        async with players(gateway) as enter:
            async with players(gateway) as enter_and_leave:
                left = await enter_and_leave("left")
                await left.play()
            names = ["m0", "m1", "m2", "m3"]
            found: list[Player] = [await enter(name) for name in names * 2]
            async with playing_on(found):
                kill_primary(gateway)
                await start_again(gateway)
                assert await settled(gateway) == 1
                found += (late := [await enter(name) for name in names])
                assert [player.entered["moves"] for player in late] == [0] * 4
                assert await reload(gateway) == "12 connections moved, 0 closed"
            for name in names:
                of_match = [player for player in found if player.match == name]
                for player in of_match:
                    last = await player.play("last")
                    assert (last["moves"], last["generation"]) == (1, 2)
                assert_one_match(of_match)
                assert len({player.answers[-1]["pid"] for player in of_match}) == 1
            # A match without players goes too: its worker remembers it, whichever primary asks.
            again = await enter("left")
            assert (again.entered["entered"], again.entered["moves"]) == (1, 1)
            assert again.entered["born_in"] == left.entered["pid"]
        assert "Traceback" not in gateway.log
