"""What the page of examples/game says twice: msgpack and the physics, compared with Python's in Chromium."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import msgpack
import pytest
import support.game_example  # noqa: F401  (from here on its modules can be imported)
from arena import Arena
from ship import Controls
from support.chromium import browser
from support.game_example import BY_MATCH, GAME
from support.game_page import GamePage
from support.gateway import Gateway

VALUES: list[Any] = [
    *(None, True, False, 0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53, -1, -32, -33, -128, -129),
    *(-(2**15) - 1, -(2**31) - 1, -(2**53), 0.5, -1e300, "", "x" * 31, "ä" * 16, "z" * 256, "ü" * 40_000),
    *([], [1, [2, [3]]], list(range(15)), list(range(16)), list(range(70_000))),
    *({}, {"a": {"b": None}}, {str(number): number for number in range(16)}, {"tick": 7, "ships": [[1, 2.5, -0.25]]}),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GamePage]:
    with Gateway(GAME, *BY_MATCH, workers=1) as gateway, browser(tmp_path_factory.mktemp("profile")) as driver:
        yield GamePage(driver, gateway.url)


def test_the_page_reads_what_python_has_packed(page: GamePage) -> None:
    packed = [list(msgpack.packb(value)) for value in VALUES]
    read = page.run("msgpack.js", "return args[0].map((bytes) => it.decode(new Uint8Array(bytes).buffer))", packed)
    assert read == VALUES


def test_python_reads_what_the_page_has_packed(page: GamePage) -> None:
    written = page.run("msgpack.js", "return args[0].map((value) => [...it.encode(value)])", VALUES)
    assert [msgpack.unpackb(bytes(data)) for data in written] == VALUES


def test_the_page_reads_single_floats_and_bytes(page: GamePage) -> None:
    packed = list(msgpack.packb([0.5, b"\x00\xff"], use_single_float=True))
    decode = "const [x, bytes] = it.decode(new Uint8Array(args[0]).buffer); return [x, [...bytes]]"
    assert page.run("msgpack.js", decode, packed) == [0.5, [0, 255]]


@pytest.mark.parametrize("data", [[], [0xC1], [0x92, 1], [0xA5, 65], [0xCB, 0], [1, 2], [0xD9, 1, 0xFF]])
def test_the_page_refuses_what_is_no_message(page: GamePage, data: list[int]) -> None:
    result = page.run("msgpack.js", "return it.decode(new Uint8Array(args[0]).buffer)", data)
    assert isinstance(result, dict)
    assert "Error" in result["error"]


def test_a_connection_that_falls_silent_is_opened_anew(page: GamePage) -> None:
    """A network that is gone closes nothing, and a browser waits for minutes."""
    script = """
        const sockets = [];
        const real = globalThis.WebSocket;
        globalThis.WebSocket = class { constructor() { sockets.push(this); } close() { this.isClosed = true; } };
        return new Promise((resolve) => {
          const states = [];
          const connection = it.link("/", {
            silentSeconds: 0.01,
            onMessage() {},
            onState({ name }) {
              states.push(name);
              if (sockets.length < 2) return;
              connection.close();
              globalThis.WebSocket = real;
            },
          });
          sockets[0].onmessage({ data: new Uint8Array([0xc0]).buffer });
          const look = setInterval(() => {
            if (sockets.length < 2) return;
            clearInterval(look);
            resolve([states, sockets[0].isClosed, sockets[0].onclose]);
          }, 5);
        });
    """
    states, is_closed, heeds = page.run("link.js", script)
    assert states[:4] == ["connecting", "open", "waiting", "connecting"]
    assert is_closed
    assert heeds is None


@pytest.mark.parametrize("is_opened", [False, True], ids=["never opens", "opens and says nothing"])
def test_a_connection_that_never_says_anything_is_opened_anew(page: GamePage, is_opened: bool) -> None:
    """So a player is back soon after the network is, whatever became of the attempts meanwhile; in the lobby too."""
    script = """
        const sockets = [], states = [], timers = new Map(), waits = [];
        const real = { WebSocket, setTimeout, clearTimeout };
        globalThis.WebSocket = class { constructor() { sockets.push(this); } close() { this.isClosed = true; } };
        globalThis.setTimeout = (call, ms) => { waits.push(ms); timers.set(waits.length, call); return waits.length; };
        globalThis.clearTimeout = (id) => timers.delete(id);
        function pass() {
          const [[id, call]] = timers;
          timers.delete(id);
          call();
        }
        try {
          it.link("/", { onMessage() {}, onState: ({ name }) => states.push(name) });
          if (args[0]) {
            sockets[0].readyState = real.WebSocket.OPEN;
            sockets[0].onopen?.();
          }
          pass(); // the first message has not come
          const isDropped = sockets[0].isClosed && !sockets[0].onmessage && !sockets[0].onclose;
          pass(); // the pause is over
          sockets[1].onmessage({ data: new Uint8Array([0xc0]).buffer });
          return { states, waits, isDropped, sockets: sockets.length, left: timers.size };
        } finally {
          Object.assign(globalThis, real);
        }
    """
    seen = page.run("link.js", script, is_opened)
    assert "error" not in seen, "no timer is left to pass"
    first, pause, second = seen.pop("waits")
    assert (first, second) == (10_000, 10_000), "longer than a handshake may wait at the server"
    assert pause < 200
    states = ["connecting", "waiting", "connecting", "open"]
    assert seen == {"states": states, "isDropped": True, "sockets": 2, "left": 0}


def test_a_connection_whose_player_did_nothing_is_not_opened_anew(page: GamePage) -> None:
    """So the game is not played by pages in the background."""
    script = """
        const states = [], sockets = [];
        const real = globalThis.WebSocket;
        globalThis.WebSocket = class { constructor() { sockets.push(this); } close() {} };
        try {
          const connection = it.link("/", { onMessage() {}, onState: (state) => states.push(state) });
          sockets[0].onclose({ code: 1013, reason: "too many matches" });
          connection.close();
          it.link("/", { onMessage() {}, onState: (state) => states.push(state) });
          sockets[1].onclose({ code: 4003, reason: "you did nothing" });
          return states;
        } finally {
          globalThis.WebSocket = real;
        }
    """
    _, waiting, _, ended = page.run("link.js", script)
    assert (waiting["name"], waiting["reason"]) == ("waiting", "too many matches")
    assert ended == {"name": "ended", "reason": "you did nothing"}


def test_the_page_flies_as_the_server_does(page: GamePage) -> None:
    rng = random.Random(1)
    flight = [Controls(rng.random() < 0.8, rng.choice((-1, 0, 0, 1))) for _ in range(100) for _ in range(6)]
    arena = Arena()
    ship = arena.add_ship()
    start = dict(zip(("x", "y", "vx", "vy", "angle"), astuple(ship)[1:6], strict=True))
    expected = []
    for controls in flight:
        arena.step({ship.id: controls})
        expected.append(list(astuple(ship)[1:6]))
    script = """
        let ship = args[0];
        return args[1].map(([thrust, turn]) => {
          ship = it.flown(ship, { thrust, turn });
          return [ship.x, ship.y, ship.vx, ship.vy, ship.angle];
        });
    """
    flown = page.run("ship.js", script, start, [list(controls[:2]) for controls in flight])
    assert len({round(row[0]) for row in expected}) > 50, "it flies somewhere"
    for theirs, ours in zip(flown, expected, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)
