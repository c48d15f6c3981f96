"""One stream of log lines for all processes: each says whose it is, and each connection has one line at its end."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, running_gateway
from support.raw import Raw
from support.waiting import wait_until
from websockets.exceptions import InvalidStatus

from stickygw.errors import ExitCode

TALKATIVE = Path(__file__).parent / "apps" / "talkative.py"
JSON = ("--set", "log_format=json")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(f"{TALKATIVE}:app", *JSON) as gateway:
        yield gateway


def entries(gateway: Gateway) -> list[dict[str, Any]]:
    """What was logged. All that is not the ready line is JSON."""
    return [json.loads(line) for line in gateway.log.splitlines() if line and not line.startswith("ready: ")]


async def line_of(gateway: Gateway, **wanted: Any) -> dict[str, Any]:
    """The one access line that has these fields."""

    def found() -> list[dict[str, Any]]:
        return [
            entry
            for entry in entries(gateway)
            if entry["logger"] == "stickygw.access" and wanted.items() <= entry.items()
        ]

    await wait_until(found)
    [line] = found()
    return line


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def test_a_websocket_has_one_line_at_its_end_and_no_secret_in_it(gateway: Gateway) -> None:
    async with gateway.connect("/def/kitchen?token=hunter2", headers={"X-Key": "hunter3"}) as connection:
        id = await connection.recv()
        cookie = gateway.cookie_of(connection)
        for text in ("one", "two"):
            await connection.send(text)
            assert await connection.recv() == text
        port = connection.local_address[1]
        await connection.close(4321)
    line = await line_of(gateway, connection=id)
    slot = line["slot"]
    assert line["pid"] == gateway.worker_pids()[slot]
    assert (
        line.items()
        >= {
            "level": "info",
            "message": "access",
            "process": "worker",
            "generation": 1,
            "client": "127.0.0.1",
            "port": port,
            "reason": "least_loaded",
            "kind": "websocket",
            "method": "GET",
            "path": "/def/kitchen",
            "status": 101,
            "messages_in": 2,
            "messages_out": 3,
            "close_code": 4321,
        }.items()
    )
    assert 0 < line["seconds"] < 60
    assert line["bytes_in"] > 100 + 2 * 9
    assert line["bytes_out"] > 100 + 16 + 2 * 5
    assert cookie is not None
    session = cookie.split(".")[2]
    assert not [secret for secret in ("hunter2", "hunter3", session) if secret in gateway.log]


async def test_a_client_that_vanishes_has_close_code_1006(gateway: Gateway) -> None:
    async with gateway.connect("/async/attic") as connection:
        id = await connection.recv()
        connection.transport.abort()
    assert (await line_of(gateway, connection=id))["close_code"] == 1006


async def test_plain_http_and_a_refused_handshake_have_a_line_with_their_status(gateway: Gateway) -> None:
    assert await asyncio.to_thread(status_of, f"{gateway.url}/healthz") == 200
    health = await line_of(gateway, path="/healthz")
    assert (health["kind"], health["status"], health["reason"]) == ("http", 200, "least_loaded")
    assert "close_code" not in health
    assert len(health["connection"]) == 16
    assert await asyncio.to_thread(status_of, f"{gateway.url}/page%0aforged?token=hunter2") == 426
    assert (await line_of(gateway, path="/page%0aforged"))["status"] == 426
    for path, headers, status in (("/nowhere", {}, 404), ("/def/hall", {"Authorization": "hunter4"}, 401)):
        with pytest.raises(InvalidStatus):
            async with gateway.connect(path, headers=headers):
                pass
        line = await line_of(gateway, path=path)
        assert (line["kind"], line["status"]) == ("websocket", status)
    assert "hunter" not in gateway.log


async def test_what_the_primary_refuses_has_its_line_there(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        await raw.send(b"GET / HTTP/9.9\r\n\r\n")
        await raw.receive_all()
    line = await line_of(gateway, reason="bad_version")
    assert (line["process"], line["pid"], line["status"]) == ("primary", gateway.pid, 400)
    assert "slot" not in line


async def test_what_an_application_logs_in_a_handler_carries_the_connection(gateway: Gateway) -> None:
    ids: dict[str, Any] = {}
    for _ in range(2):  # side by side, in one worker or two
        async with (
            gateway.connect("/def/a") as a,
            gateway.connect("/def/b") as b,
            gateway.connect("/async/c") as c,
            gateway.connect("/async/d") as d,
        ):
            for name, connection in {"a": a, "b": b, "c": c, "d": d}.items():
                ids[name] = await connection.recv()
            for connection in (a, b, c, d):
                for _ in range(5):
                    await connection.send("x")
            for connection in (a, b, c, d):
                for _ in range(5):
                    assert await connection.recv() == "x"
        for name, id in ids.items():
            await line_of(gateway, connection=id)
            own = [entry["message"] for entry in entries(gateway) if entry.get("connection") == id]
            path = f"/{'def' if name in 'ab' else 'async'}/{name}"
            said = [f"in def {name}"] * 5 if name in "ab" else [f"in async {name}", f"in a task {name}"] * 5
            assert own == [f"in on_handshake {path}", *said, "access"]
    mine = [entry for entry in entries(gateway) if entry["logger"] == "talkative"]
    assert all(entry["process"] == "worker" and len(entry["connection"]) == 16 for entry in mine)


async def test_without_access_log_there_are_no_lines() -> None:
    async with running_gateway(f"{TALKATIVE}:app", *JSON, "--set", "access_log=false", workers=1) as gateway:
        async with gateway.connect("/def/kitchen"):
            pass
        async with Raw(gateway.port) as raw:
            await raw.send(b"GET / HTTP/9.9\r\n\r\n")
            await raw.receive_all()
        assert await asyncio.to_thread(gateway.stop) == ExitCode.OK
        gateway.wait_for_line("\0")  # no line has it: this returns at the end of the log
        assert "stickygw.access" not in gateway.log


async def test_an_applications_logging_config_does_not_silence_the_gateway() -> None:
    async with running_gateway(f"{TALKATIVE}:configured", *JSON, workers=1) as gateway:
        await asyncio.to_thread(status_of, f"{gateway.url}/healthz")
        await line_of(gateway, path="/healthz")


async def test_an_application_that_fails_behind_its_logging_config_still_shows_why() -> None:
    gateway = Gateway(f"{TALKATIVE}:failing", *JSON, workers=1)
    try:
        gateway.launch()
        assert await asyncio.to_thread(gateway.wait) == ExitCode.TARGET
        gateway.wait_for_line("\0")
        [failure] = [entry for entry in entries(gateway) if "exception" in entry]
    finally:
        await asyncio.to_thread(gateway.close)
    assert failure["exception"].endswith("RuntimeError: the application's own reason")
