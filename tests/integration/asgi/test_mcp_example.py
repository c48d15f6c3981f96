"""examples/mcp_server: sessions of the official SDK's client on four workers."""

from __future__ import annotations

import pytest
from mcp.client import Client
from support.example_clients import Outcome, run_client
from support.gateway import IN_TURNS, ROOT, running_gateway
from support.uvicorn_server import Uvicorn

EXAMPLE = ROOT / "examples" / "mcp_server"
TARGET = f"{EXAMPLE / 'app.py'}:app"
LEARN = ("--learn", "header:mcp-session-id")


async def conversations(url: str, sessions: int, calls: int) -> Outcome:
    return await run_client(EXAMPLE / "client.py", f"{url}/mcp", "--sessions", sessions, "--calls", calls)


async def assert_that_all_are_known(sessions: int, calls: int) -> None:
    async with running_gateway(TARGET, *LEARN, *IN_TURNS, workers=4) as gateway:
        outcome = await conversations(gateway.url, sessions, calls)
        assert outcome.served == sessions, outcome.text
        assert outcome.workers == set(gateway.worker_pids().values())
        assert "status=404" not in gateway.log


@pytest.mark.long
async def test_sessions_are_known_on_four_workers() -> None:
    await assert_that_all_are_known(sessions=8, calls=5)


@pytest.mark.alone
@pytest.mark.long
async def test_thirty_long_sessions_are_known_where_uvicorn_knows_them_not() -> None:
    await assert_that_all_are_known(sessions=30, calls=20)
    # The test sees what it is about: without affinity even a small part of the load fails.
    sessions, calls = 8, 5
    with Uvicorn("app:app", directory=str(EXAMPLE), workers=4) as server:
        outcome = await conversations(f"http://127.0.0.1:{server.port}", sessions, calls)
        assert outcome.served < sessions
        assert "Session not found" in outcome.text


@pytest.mark.long
async def test_clients_of_newer_protocols_need_no_affinity() -> None:
    async with running_gateway(TARGET, *LEARN, *IN_TURNS, workers=2) as gateway:
        async with Client(f"{gateway.url}/mcp") as client:
            assert client.session.protocol_version > "2025-11-25"
            answers = [await client.call_tool("worker") for _ in range(8)]
            refused = await client.call_tool("note", {"text": "for whom?"})
        workers = {answer.structured_content and answer.structured_content["result"] for answer in answers}
        assert workers == set(gateway.worker_pids().values())
        assert refused.is_error
        assert "Notes belong to a session" in str(refused.content)
