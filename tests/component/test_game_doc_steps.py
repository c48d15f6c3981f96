"""docs/game.md: each of its steps is a program that runs."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis.exceptions import RedisError
from support.game_example import BY_MATCH
from support.gateway import Gateway
from support.valkey import ValkeyServer
from support.waiting import wait_until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from stickygw.testing import AppClient
from stickygw.testing.app_client import HandshakeRefused

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "game.md").read_text("utf-8")
ONE_PROCESS, PLAYER, AUTHORITATIVE, LASTING, NAMED = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def run(step: str) -> dict[str, Any]:
    """What the step defines."""
    names: dict[str, Any] = {"__name__": "game"}
    exec(compile(step, "docs/game.md", "exec", dont_inherit=True), names)
    return names


async def test_players_of_a_match_are_told_where_all_are() -> None:
    names = run(ONE_PROCESS)
    async with AppClient(names["app"]) as client, client.connect("/match/7") as ada:
        async with client.connect("/match/7") as bob, client.connect("/match/8") as eve:
            await bob.send(1)
            await bob.send(1)
            while sorted((await ada.receive()).values()) != [0, 2]:
                pass
            assert list((await eve.receive()).values()) == [0]
        while len(await ada.receive()) != 1:
            pass


async def test_one_input_counts_in_a_tick_and_a_session_is_a_player() -> None:
    names = run(AUTHORITATIVE)
    async with AppClient(names["app"]) as client:
        async with client.connect("/match/7") as ada:
            for number in (1, 2, 2, 1):
                await ada.send([number, 1])
            while (snapshot := await ada.receive())["ships"] != [[2, 2]]:
                assert snapshot["late"] >= 0
            await ada.send([3, 5])
            assert await ada.wait_closed() == 1008
        async with client.connect("/match/7", session=ada.session_id) as ada:
            assert (await ada.receive())["ships"] == [[2, 2]]


async def test_a_match_outlives_memory_and_moves(own_valkey: ValkeyServer) -> None:
    names = run(LASTING)
    async with AppClient(names["app"], redis_url=own_valkey.url, keys=["path:/match/{id}"]) as client:
        async with client.connect("/match/7") as ada:
            await ada.send("point")
            assert await ada.receive() == [1]
            await names["save"]()
            names["matches"].clear()  # as a crash would
        async with client.connect("/match/7", session=ada.session_id) as ada:
            await ada.send("point")
            assert await ada.receive() == [2]
            names["take_over"]("7", names["let_go"]("7"))
            await ada.send("point")
            assert await ada.receive() == [3]
        await wait_until(lambda: not names["matches"])  # `save` has seen that nobody is there
        own_valkey.stop()
        async with client.connect("/match/8") as bob:
            assert await bob.wait_closed() == 1013


async def test_a_match_that_has_moved_waits_for_its_players(own_valkey: ValkeyServer) -> None:
    names = run(LASTING)
    async with AppClient(names["app"], redis_url=own_valkey.url):
        names["take_over"]("7", {"ada": 3})
        await names["save"]()
        assert names["matches"] == {"7": {"ada": 3}}
        await names["save"]()
        assert names["matches"] == {}


async def test_a_match_is_forgotten_when_it_has_been_written_down(own_valkey: ValkeyServer) -> None:
    names = run(LASTING)
    async with AppClient(names["app"], redis_url=own_valkey.url):
        names["take_over"]("7", {"ada": 3})
        await names["save"]()
        own_valkey.stop()
        for _ in range(2):
            with pytest.raises(RedisError):
                await names["save"]()
        assert names["matches"] == {"7": {"ada": 3}}
        own_valkey.start()
        await names["save"]()
        assert names["matches"] == {}
        assert await names["opened"]("7") == {"ada": 3}


def test_the_player_plays(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(ONE_PROCESS)
    (tmp_path / "player.py").write_text(PLAYER)
    with Gateway(f"{tmp_path / 'game.py'}:app", *BY_MATCH, workers=1) as gateway:
        command = [sys.executable, "-u", str(tmp_path / "player.py"), f"{gateway.ws_url}/match/7", "1", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as player:
            assert player.stdout is not None
            assert any(line.rstrip().endswith(": 2}") for line in player.stdout)
            player.kill()


async def test_an_id_says_where_its_match_is() -> None:
    names = run(NAMED)
    async with AppClient(names["app"]) as client:
        async with client.connect("/new") as ada:
            id = (await ada.receive())["match"]
        async with client.connect(f"/match/{id}") as ada:
            assert await ada.receive() == {"welcome": id}
        for gateway, status in (("4e5f6071", 421), ("ffffffff", 404)):
            with pytest.raises(HandshakeRefused) as refused:
                async with client.connect(f"/match/{gateway}.AAAAAAAAAAAAAAAAAAAAAA"):
                    pass
            assert refused.value.status == status


def free_ports(count: int) -> list[int]:
    """Nobody listens on them."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


async def test_the_two_gateways_of_the_page_say_where_each_others_matches_are(tmp_path: Path) -> None:
    """As they are started there, but for the ports, which others may have. Takes the start of two gateways."""
    lines = re.findall(r"^    (stickygw run .*gateway_id.*)$", PAGE, re.M)
    program, ports = NAMED, free_ports(2)
    for said, port in zip(("127.0.0.1:8000", "127.0.0.1:8001"), ports, strict=True):
        assert said in program
        program = program.replace(said, f"127.0.0.1:{port}")
        lines = [line.replace(said, f"127.0.0.1:{port}") for line in lines]
    (tmp_path / "game.py").write_text(program)
    with ExitStack() as stack:
        for line in lines:
            _, _, target, *options = shlex.split(line)
            stack.enter_context(Gateway(str(tmp_path / target), *options, workers=1))
        for port, other in (ports, ports[::-1]):
            async with connect(f"ws://127.0.0.1:{port}/new", proxy=None) as begun:
                match = msgpack.unpackb(await begun.recv())
            assert match["at"] == f"http://127.0.0.1:{port}"
            path = f"/match/{match['match']}"
            async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as player:
                assert msgpack.unpackb(await player.recv()) == {"welcome": match["match"]}
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{other}{path}", proxy=None)
            assert refused.value.response.status_code == 421
            assert refused.value.response.headers["Location"] == f"http://127.0.0.1:{port}{path}"


@pytest.mark.parametrize("file", ["docs/game.md", "examples/game/README.md", "examples/game/app.py"])
def test_the_example_is_started_so_that_no_long_message_is_decoded(file: str) -> None:
    lines = re.findall(r"stickygw run examples/game/app\.py:app.*", (ROOT / file).read_text("utf-8"))
    assert lines
    assert all("--set max_message=1024" in line for line in lines)
    assert "max_message=1024" in BY_MATCH


def test_the_page_names_the_files_that_there_are() -> None:
    folder = ROOT / "examples" / "game"
    named = {name for name in re.findall(r"`([a-z]+\.(?:py|js))`", PAGE) if name not in ("game.py", "player.py")}
    assert {path.name for path in folder.glob("*.py")} <= named
    assert all((folder / name).exists() or (folder / "page" / name).exists() for name in named)
