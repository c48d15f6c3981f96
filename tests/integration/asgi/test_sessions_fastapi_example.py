"""examples/sessions_fastapi: each command of its README, as it stands there, but for the port."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.closes import close_of
from support.gateway import ROOT, Gateway
from support.uvicorn_server import Uvicorn
from support.valkey import ValkeyServer
from websockets.asyncio.client import connect

EXAMPLE = ROOT / "examples" / "sessions_fastapi"
INSTALL, CURL, UVICORN = re.findall(r"^```\n(.*?)^```$", (EXAMPLE / "README.md").read_text("utf-8"), re.M | re.S)
RUN = INSTALL.splitlines()[1]
PORT = "127.0.0.1:8000"


def run(script: str, folder: Path, **environment: str) -> str:
    """What a shell prints for `script`, which must not fail."""
    command = ["bash", "-euo", "pipefail", "-c", script.replace("curl ", "curl -sS --fail-with-body ")]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cookie_in(jar: Path) -> str:
    """What a client with this jar of curl's sends."""
    *_, name, value = next(line for line in jar.read_text().splitlines() if line.count("\t") == 6).split("\t")
    return f"{name}={value}"


def add_a_cake(port: int, folder: Path) -> None:
    run(CURL.splitlines()[1].replace("Tea", "Cake").replace(PORT, f"127.0.0.1:{port}"), folder)


async def check_a_visit(port: int, folder: Path) -> None:
    """A guest fills the cart with curl and sees it by a WebSocket, until the sign-out ends it."""
    printed: dict[str, Any] = json.loads(run(CURL.replace(PORT, f"127.0.0.1:{port}"), folder))
    assert (printed["name"], printed["cart"]) == ("Ada", ["Tea"])
    fields = {"Cookie": cookie_in(folder / "jar")}
    async with connect(f"ws://127.0.0.1:{port}/live", additional_headers=fields) as tab:
        assert json.loads(await tab.recv()) == printed
        add_a_cake(port, folder)
        assert json.loads(await tab.recv())["cart"] == ["Tea", "Cake"]
        run(f"curl -b jar -X POST http://127.0.0.1:{port}/logout", folder)
        assert (await close_of(tab))[0] == 4401
    status = run(f"curl -b jar -o away -w '%{{http_code}}' http://127.0.0.1:{port}/cart || true", folder)
    assert status == "401"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    words = shlex.split(RUN)
    assert words == ["stickygw", "run", words[2], "--workers", "2"]
    with Gateway(str(ROOT / words[2]), workers=2) as gateway:
        yield gateway


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uvicorn]:
    *setting, last = UVICORN.splitlines()
    valkey = ValkeyServer()
    valkey.start()
    try:
        script = "\n".join(setting).replace("redis://127.0.0.1:6379/0", valkey.url)
        printed = run(f'{script}\necho "$PWD $SESSION_STORE $SESSION_SECRET"', ROOT).split()
        assert [last, *printed[:2]] == ["uvicorn app:app", str(EXAMPLE), valkey.url]
        for name, value in zip(("SESSION_STORE", "SESSION_SECRET"), printed[1:], strict=True):
            monkeypatch.setenv(name, value)
        with Uvicorn("app:app", directory=str(EXAMPLE)) as server:
            yield server
    finally:
        valkey.close()


async def test_it_needs_nothing_but_its_target_in_a_gateway(gateway: Gateway, tmp_path: Path) -> None:
    await check_a_visit(gateway.port, tmp_path)


async def test_it_runs_in_another_server_with_secret_and_store_of_its_environment(
    server: Uvicorn, tmp_path: Path
) -> None:
    await check_a_visit(server.port, tmp_path)


async def test_the_page_is_served_and_a_cart_needs_a_guest(gateway: Gateway, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    assert "The tea room" in run(f"curl {url}/", tmp_path)
    assert run(f"curl -o away -w '%{{http_code}}' {url}/cart || true", tmp_path) == "401"
    async with connect(f"ws://127.0.0.1:{gateway.port}/live") as tab:
        assert (await close_of(tab))[0] == 4401
