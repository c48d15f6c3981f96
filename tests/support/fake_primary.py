"""A gateway's control socket without the gateway: the real server, and answers that are always the same.

``python -m support.fake_primary DIRECTORY EXIT`` is one in a process of its own, which ends with the command ``stop``:
its answer is EXIT, and none if that is empty.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stickygw.errors import CommandError, ExitCode
from stickygw.ipc.control import ControlServer
from stickygw.wire.control import Request

STORE_SECONDS = 0.3
"""A gateway's process outlives its last word a little."""

STATUS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "status.json").read_text("utf-8"))


class FakePrimary:
    """What it was asked is in `requests`; `answers` may be changed, for a function of the request too."""

    server: ControlServer

    def __init__(self, **status: Any) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.is_stopping = asyncio.Event()
        self.answers: dict[str, Any] = {
            "status": {**STATUS, **status},
            "why": {
                "slot": 2,
                "reason": "cookie",
                "steps": ["the cookie is signed by this gateway", "slot 2 is ready"],
            },
            "reload": {"message": "reloaded: generation 4"},
            "scale": {"message": "scaled"},
            "drain": {"message": "drained"},
            "restart": {"message": "restarted"},
            "stop": {"exit": "OK"},
            "tell": {"told": 4},
            "ask": {"answers": {0: {"payload": {"games": 17}}, 1: {"payload": None}}},
        }
        self.progress: dict[str, list[str]] = {"reload": ["slot 0: ready", "slot 1: ready"]}

    async def handle(self, request: Request, say: Callable[[str], None]) -> dict[str, Any]:
        self.requests.append((request.do, request.arguments))
        if request.do not in self.answers:
            raise CommandError(f"unknown command {request.do!r}")
        for line in self.progress.get(request.do, []):
            say(line)
        if request.do == "stop":
            self.is_stopping.set()
        answer = self.answers[request.do]
        if isinstance(answer, BaseException):
            raise answer
        return await answer(request) if callable(answer) else answer

    def asked(self, do: str) -> list[dict[str, Any]]:
        """The arguments of each request of that name."""
        return [arguments for name, arguments in self.requests if name == do]


async def never(_: Request) -> dict[str, Any]:
    """No answer at all."""
    await asyncio.Event().wait()
    raise AssertionError


def failure(code: ExitCode, message: str) -> CommandError:
    """An error that ends a command with that exit code."""
    error = CommandError(message)
    error.exit_code = code
    return error


@asynccontextmanager
async def fake_primary(directory: Path, **status: Any) -> AsyncIterator[FakePrimary]:
    """One that listens in `directory`, which is made."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    primary = FakePrimary(**status)
    primary.server = ControlServer(directory / "control", primary.handle)
    await primary.server.start()
    try:
        yield primary
    finally:
        primary.server.close()


async def _until_stopped(directory: Path, exit_name: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    primary = FakePrimary()
    primary.answers["stop"] = {"exit": exit_name} if exit_name else never
    server = ControlServer(directory / "control", primary.handle)
    await server.start()
    print("listening", flush=True)
    await primary.is_stopping.wait()
    if exit_name:
        await server.drain(10)
    server.close()
    await asyncio.sleep(STORE_SECONDS)


if __name__ == "__main__":
    asyncio.run(_until_stopped(Path(sys.argv[1]), sys.argv[2]))
