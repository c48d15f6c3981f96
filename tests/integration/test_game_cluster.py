"""examples/game on several workers: a match is in one place, whatever becomes of workers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import msgpack
import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from store import LEASE_SECONDS
from support.game_bots import SECONDS, Playing, playing
from support.game_example import BY_MATCH, GAME, GAME_FOLDER, PATIENT
from support.gateway import Gateway
from support.valkey import ValkeyServer
from support.waiting import wait_until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus


async def test_all_players_of_a_match_are_on_one_slot_while_the_gateway_grows() -> None:
    with Gateway(GAME, *BY_MATCH, workers=2) as gateway:
        async with playing(gateway.url, matches=16, bots_each=3, hz=2) as game:  # ids are random: they spread
            await game.ticks(20)
            before = {id: set(slots) for id, slots in game.places.items()}
            assert all(len(slots) == 1 for slots in before.values())
            assert set.union(*before.values()) == {0, 1}

            grown = await asyncio.to_thread(gateway.command, "scale", "4")
            assert grown.returncode == 0, grown.stderr
            await game.ticks(20)
            assert game.places == before
            assert not game.tally.closes
            async with playing(gateway.url, matches=16, bots_each=2, hz=2) as newer:
                await newer.ticks(5)
                assert all(len(slots) == 1 for slots in newer.places.values())
                assert set.union(*newer.places.values()) & {2, 3}


async def test_matches_of_a_killed_worker_are_resumed_with_scores_and_players() -> None:
    with Gateway(GAME, *BY_MATCH, *PATIENT, workers=2) as gateway:
        async with playing(gateway.url, matches=6, bots_each=5, hz=10) as game:
            await crash(gateway, game, seconds=SECONDS)
            assert all(len(slots) == 1 for slots in game.places.values())


@pytest.mark.alone
@pytest.mark.long
async def test_matches_of_a_killed_worker_are_soon_resumed_as_an_operator_runs_them() -> None:
    """With the default `slot_wait`. The figure is printed. If the next worker starts slowly, another one is asked,
    which waits until the killed one's claim ends: hence the deadline."""
    with Gateway(GAME, *BY_MATCH, workers=2) as gateway:
        async with playing(gateway.url, matches=6, bots_each=5, hz=10) as game:
            print(f"resumed after {await crash(gateway, game, seconds=LEASE_SECONDS + 15):.2f} s")


async def crash(gateway: Gateway, game: Playing, *, seconds: float) -> float:
    """End slot 0's worker, and wait for `seconds` at most until all its bots play again, with their scores; how many
    seconds it took is returned."""
    await game.points(6)
    scores = {bot: bot.score for bot in game.bots}
    await game.ticks(60)  # three seconds: they are in a checkpoint now
    ticks = {bot: bot.tick for bot in game.bots}
    victims = [bot for bot in game.bots if game.places[bot.id] == {0}]
    assert 0 < len(victims) < len(game.bots)

    gateway.kill_worker(0)
    killed_at = time.monotonic()
    async with asyncio.timeout(seconds):
        await wait_until(lambda: game.tally.closes[1006] >= len(victims), seconds=seconds)
        await wait_until(lambda: all(bot.is_playing for bot in victims), seconds=seconds)
    took = time.monotonic() - killed_at

    for bot in game.bots:
        assert bot.score >= scores[bot]
        assert bot.tick > ticks[bot] - 60, "older than a checkpoint can be"
    await game.ticks(20)
    return took


@pytest.mark.long
async def test_a_reload_moves_matches_with_their_players() -> None:
    with Gateway(GAME, *BY_MATCH, workers=2) as gateway:
        async with playing(gateway.url, matches=10, bots_each=5, hz=10) as game:
            await game.points(3)
            scores = {bot: bot.score for bot in game.bots}
            for _ in range(2):
                reloaded = await asyncio.to_thread(gateway.command, "reload")
                assert reloaded.returncode == 0, reloaded.stderr
                await game.ticks(20)
            assert not game.tally.closes, "nobody was closed; that nobody jumped, and no tick is missing, they look at"
            assert all(bot.score >= scores[bot] for bot in game.bots)


@pytest.mark.long
async def test_matches_and_players_of_slots_that_are_scaled_away_move_in_one_piece() -> None:
    """They go to another slot, behind their match, and miss nothing of what it tells its room there meanwhile."""
    with Gateway(GAME, *BY_MATCH, workers=4) as gateway:
        async with playing(gateway.url, matches=12, bots_each=3, hz=10) as game:
            await game.points(3)
            before = {id: set(slots) for id, slots in game.places.items()}
            scores = {bot: bot.score for bot in game.bots}
            ships = {bot: bot.ship for bot in game.bots}
            assert all(len(slots) == 1 for slots in before.values())
            assert set.union(*before.values()) & {2, 3}

            shrunk = await asyncio.to_thread(gateway.command, "scale", "2")
            assert shrunk.returncode == 0, shrunk.stderr
            await game.ticks(40)
            game.places.clear()  # what was on its way to the bots is read
            await game.ticks(5)
            assert not game.tally.closes, "nobody was closed; that nobody jumped they look at"
            assert all(len(slots) == 1 for slots in game.places.values())
            assert set.union(*game.places.values()) <= {0, 1}
            assert all(game.places[id] == slots for id, slots in before.items() if slots <= {0, 1}), "only others move"
            assert all(bot.score >= scores[bot] and bot.ship == ships[bot] for bot in game.bots)


async def test_who_drops_comes_back_to_their_ship() -> None:
    with Gateway(GAME, *BY_MATCH, workers=2) as gateway:
        async with playing(gateway.url, matches=1, bots_each=2, hz=10) as game:
            ships = [bot.ship for bot in game.bots]
            for bot in game.bots:
                bot.drop()
            await wait_until(lambda: game.tally.closes.total() == 2, seconds=SECONDS)
            await game.ticks(5)
            assert [bot.ship for bot in game.bots] == ships


async def listing_of(lobby: ClientConnection, matches: int) -> dict[str, list[object]]:
    """What the lobby says of each match, as soon as it knows so many."""
    async with asyncio.timeout(SECONDS):
        while True:
            message = msgpack.unpackb(await lobby.recv())
            if message["type"] == "lobby" and len(message["matches"]) == matches:
                return {match[0]: match[1:] for match in message["matches"]}


async def test_two_gateways_show_each_others_matches_and_say_where_they_are(valkey: ValkeyServer, prefix: str) -> None:
    shared = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}", *BY_MATCH]
    secret = {"STICKYGW_SECRET": "a secret of at least thirty-two bytes"}
    names = ("http://north.example", "http://south.example")
    with (
        Gateway(GAME, *shared, "--set", f"public_url={names[0]}", workers=1, environment=secret) as north,
        Gateway(GAME, *shared, "--set", f"public_url={names[1]}", workers=2, environment=secret) as south,
    ):
        async with (
            playing(north.url, matches=1, bots_each=2, hz=2) as here,
            playing(south.url, matches=2, bots_each=1, hz=2) as there,
        ):
            for gateway in (north, south):
                async with connect(f"{gateway.ws_url}/lobby", proxy=None) as lobby:
                    listing = await listing_of(lobby, 3)
                assert listing[here.bots[0].id][:2] == [2, names[0]]
                assert all(listing[bot.id][:2] == [1, names[1]] for bot in there.bots)
            path = f"/match/{there.bots[0].id}"
            with pytest.raises(InvalidStatus) as refused:
                await connect(north.ws_url + path, proxy=None)
            assert refused.value.response.status_code == 421
            assert refused.value.response.headers["Location"] == names[1] + path


def test_the_bots_are_a_command() -> None:
    with Gateway(GAME, *BY_MATCH, workers=1) as gateway:
        command = [sys.executable, str(GAME_FOLDER / "bots.py"), gateway.url, "--bots", "4", "--matches", "2"]
        done = subprocess.run([*command, "--seconds", "2"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout
    assert "p99" in done.stdout


@pytest.mark.alone
@pytest.mark.long
async def test_forty_matches_of_ten_are_each_on_one_slot_while_the_gateway_grows() -> None:
    with Gateway(GAME, *BY_MATCH, workers=2) as gateway:
        async with playing(gateway.url, matches=40, bots_each=10, hz=2) as game:
            await game.ticks(40)
            before = {id: set(slots) for id, slots in game.places.items()}
            grown = await asyncio.to_thread(gateway.command, "scale", "4")
            assert grown.returncode == 0, grown.stderr
            await game.ticks(100)
            assert game.places == before
            assert all(len(slots) == 1 for slots in before.values())
            assert not game.tally.closes
