"""examples/game in two browsers, which play against each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from math import hypot
from pathlib import Path
from socket import create_server

import pytest
import redis
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from directory import Entry
from selenium.webdriver.common.keys import Keys
from support.chromium import browser
from support.game_example import BY_MATCH, GAME, PATIENT, bots
from support.game_page import GamePage
from support.gateway import Gateway
from support.valkey import ValkeyServer
from websockets.sync.client import connect


@pytest.fixture
def game() -> Iterator[Gateway]:
    with Gateway(GAME, *BY_MATCH, *PATIENT, workers=2) as gateway:
        yield gateway


@pytest.fixture
def players(game: Gateway, tmp_path: Path) -> Iterator[tuple[GamePage, GamePage]]:
    """Two, in the lobby, with a name each."""
    with ExitStack() as browsers:
        pages = [GamePage(browsers.enter_context(browser(tmp_path / name)), game.url) for name in ("ada", "bob")]
        for page, name in zip(pages, ("<b>Ada</b>", "Bob"), strict=True):
            page.rename(name)
        yield pages[0], pages[1]


def test_two_players_see_each_other_fly_and_shoot(players: tuple[GamePage, GamePage]) -> None:
    ada, bob = players
    match = ada.begin()
    bob.join(match)
    assert ada.me != bob.me
    ada.wait(lambda: bob.me in ada.ships, "Bob's ship is not seen by Ada")

    for pilot, watcher in ((ada, bob), (bob, ada)):
        start = watcher.ships[pilot.me]
        pilot.hold(Keys.ARROW_UP, Keys.ARROW_RIGHT)
        moved = f"{pilot.me} does not move where {watcher.me} looks on"
        watcher.wait(lambda p=pilot, w=watcher, s=start: distance(w.ships[p.me], s) > 40, moved)
        pilot.release(Keys.ARROW_UP, Keys.ARROW_RIGHT)
        assert watcher.ships[pilot.me]["angle"] != start["angle"]

        pilot.hold(Keys.SPACE)
        watcher.wait(lambda w=watcher: w.shots, "no shot is seen")
        pilot.release(Keys.SPACE)
        watcher.wait(lambda w=watcher: not w.shots, "the shots do not end")

    seen = ada.seen
    assert seen is not None
    assert sorted(seen["names"].values()) == ["<b>Ada</b>", "Bob"]
    ada.wait(lambda: ada.text("table").split() == ["<b>Ada</b>", "0", "Bob", "0"], "the table of scores")
    for page in players:
        page.wait(lambda p=page: "worker " in p.text("facts") and "ping " in p.text("facts"), "who serves me")
        assert page.text("facts").split(" · ")[:2] == ada.text("facts").split(" · ")[:2], "one worker has the match"
        assert page.console() == ""


@pytest.mark.long
def test_ones_own_ship_is_drawn_where_the_server_will_see_it(players: tuple[GamePage, GamePage]) -> None:
    ada, _ = players
    ada.begin()
    ada.hold(Keys.ARROW_UP)
    ada.wait(lambda: ada.ships[ada.me]["sequence"] > 40, "the inputs are not used")
    ada.release(Keys.ARROW_UP)
    slow = "the ship does not slow down"
    ada.wait(lambda: hypot(ada.ships[ada.me]["vx"], ada.ships[ada.me]["vy"]) < 100, slow)
    seen = ada.seen
    assert seen is not None
    server = next(ship for ship in seen["newest"]["ships"] if ship["id"] == seen["me"])
    assert distance(seen["drawn"], server) < 40
    assert seen["pending"] < 20


@pytest.mark.long
def test_a_player_comes_back_to_the_match_after_a_crash_of_its_worker(
    game: Gateway, players: tuple[GamePage, GamePage]
) -> None:
    ada, bob = players
    match = ada.begin()
    bob.join(match)
    me, tick = ada.me, ada.seen["newest"]["tick"]  # type: ignore[index]
    ada.wait(lambda: ada.seen["newest"]["tick"] > tick + 40, "the match does not go on")  # type: ignore[index]
    slot = ada.seen["newest"]["slot"]  # type: ignore[index]
    before = ada.wait(lambda: "process" in ada.text("facts") and ada.text("facts"), "who serves me")
    game.kill_worker(slot)
    ada.wait(lambda: before.split(" · ")[1] not in ada.text("facts"), "no other process serves me")
    for page in players:
        page.wait(lambda p=page: {me, bob.me} == set(p.ships), "both ships are there again")
    assert ada.me == me
    assert ada.seen["newest"]["slot"] == slot  # type: ignore[index]


@pytest.fixture
def lone_page(game: Gateway, tmp_path: Path) -> Iterator[GamePage]:
    with browser(tmp_path / "eve") as driver:
        yield GamePage(driver, game.url)


def test_a_link_to_a_match_that_nobody_has_says_so(lone_page: GamePage) -> None:
    lone_page.driver.get(f"{lone_page.driver.current_url}#ffffffff.AAAAAAAAAAAAAAAAAAAAAA")
    unknown = "nobody knows this match, again in "
    lone_page.wait(lambda: lone_page.text("state").startswith(unknown), "nothing says that it is in vain")


def test_a_link_to_a_match_of_another_gateway_leads_there(valkey: ValkeyServer, prefix: str, tmp_path: Path) -> None:
    """The other one is this one by its other name, which says that it has the match."""
    secret = {"STICKYGW_SECRET": "a secret of at least thirty-two bytes"}
    shared = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}", *BY_MATCH]
    with Gateway(GAME, *shared, workers=1, environment=secret) as gateway, browser(tmp_path / "eve") as driver:
        other = gateway.url.replace("127.0.0.1", "localhost")
        with redis.Redis.from_url(valkey.url) as client:
            client.hset(f"{prefix}:app:game:matches", "ffffffff/0", Entry(2e9, other, 0, []).packed())
        page = GamePage(driver, gateway.url)
        driver.get(f"{gateway.url}/#ffffffff.AAAAAAAAAAAAAAAAAAAAAA")
        page.wait(lambda: driver.current_url == f"{other}/#ffffffff.AAAAAAAAAAAAAAAAAAAAAA", "it stays where it is")


def test_a_player_who_has_to_wait_reads_why(valkey: ValkeyServer, prefix: str, tmp_path: Path) -> None:
    options = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}", *BY_MATCH]
    secret = {"STICKYGW_SECRET": "a secret of at least thirty-two bytes"}
    with Gateway(GAME, *options, workers=1, environment=secret) as gateway, browser(tmp_path / "eve") as driver:
        [match] = asyncio.run(bots.minted(gateway.url, 1))
        with redis.Redis.from_url(valkey.url) as client:
            client.set(f"{prefix}:app:game:owner:{match}", "00000000/1")
        page = GamePage(driver, gateway.url)
        driver.get(f"{gateway.url}/#{match}")
        why = "another worker has this match, again in "
        page.wait(lambda: page.text("state").startswith(why), "nothing says why it waits")


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def test_the_lobby_shows_and_joins_a_match_of_another_gateway(
    valkey: ValkeyServer, prefix: str, tmp_path: Path
) -> None:
    """With less than two gateways and a browser there is no such row."""
    secret = {"STICKYGW_SECRET": "a secret of at least thirty-two bytes"}
    shared = ["--redis", valkey.url, "--set", f"redis.prefix={prefix}", *BY_MATCH]
    port = free_port()
    south_url = f"http://127.0.0.1:{port}"
    south_options = (*shared, "--bind", f"127.0.0.1:{port}", "--set", f"public_url={south_url}")
    with (
        Gateway(GAME, *shared, workers=1, environment=secret) as north,
        Gateway(GAME, *south_options, workers=1, environment=secret) as south,
        browser(tmp_path / "ada") as driver,
    ):
        assert south_url in south.urls
        ada = GamePage(driver, north.url)
        [match] = asyncio.run(bots.minted(south_url, 1))
        with connect(f"ws://127.0.0.1:{port}/match/{match}", proxy=None, max_queue=None):  # nobody reads its snapshots
            ada.wait(lambda: ada.listed(match), "the match is not listed")
            assert ada.listed(match) == [match[-6:], "1 flying", f"worker 1 at {south_url}", "Join"]
            assert ada.link(match) == f"{south_url}/#{match}"
            ada.join(match)
            assert driver.current_url == f"{south_url}/#{match}"
            assert len(ada.ships) == 2

            driver.get(f"{south_url}/#")
            ada.wait(lambda: ada.listed(match), "the match is not listed where it is")
            assert ada.listed(match)[2] == "worker 1", "it is here"


def distance(one: dict[str, float], other: dict[str, float]) -> float:
    return hypot(one["x"] - other["x"], one["y"] - other["y"])
