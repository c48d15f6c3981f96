"""An ASGI application's life in a gateway: start, reload, drain, stop; and what stands beside it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from support.gateway import Gateway, running_gateway
from support.raw import Raw, get, head, upgrade
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from stickygw.errors import ExitCode

APPS = Path(__file__).parent / "apps"
EDGES = f"{APPS / 'edges.py'}:app"

LIFESPAN = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request, WebSocket

@asynccontextmanager
async def life(app):
    {start}
    yield {{"version": "{version}"}}
    print("its lifespan has ended", flush=True)

app = FastAPI(lifespan=life)

@app.get("/")
async def version(): return "{version}"

@app.post("/slow")
async def slow(request: Request):
    return (await request.body()).decode()

@app.websocket("/ws")
async def ws(websocket: WebSocket):
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())
"""


def write(folder: Path, version: str, start: str = "pass") -> str:
    (folder / "living.py").write_text(LIFESPAN.format(version=version, start=start))
    return f"{folder / 'living.py'}:app"


async def test_starlette_s_documented_example_runs() -> None:
    target = f"{APPS / 'starlette_docs.py'}:app"
    async with running_gateway(target, workers=1) as gateway, gateway.connect("/") as client:
        assert await client.recv() == "Hello, world!"
        await client.wait_closed()
        assert client.close_code == 1000


@pytest.mark.long
async def test_fastapi_s_documented_example_runs() -> None:
    async with running_gateway(f"{APPS / 'fastapi_docs.py'}:app", workers=1) as gateway:
        assert b"WebSocket Chat" in (await get(gateway.port, "/", ("Connection", "close"))).body
        async with gateway.connect("/ws/1") as one:
            async with gateway.connect("/ws/2") as two:
                await two.send("hello")
                assert [await two.recv(), await two.recv()] == ["You wrote: hello", "Client #2 says: hello"]
                assert await one.recv() == "Client #2 says: hello"
            assert await one.recv() == "Client #2 left the chat"


@pytest.mark.long
async def test_a_lifespan_that_fails_at_a_reload_keeps_the_old_generation(tmp_path: Path) -> None:
    async with running_gateway(write(tmp_path, "old"), workers=2) as gateway, gateway.connect("/ws") as client:
        write(tmp_path, "broken", start="raise RuntimeError('no database')")
        reload = await asyncio.to_thread(gateway.command, "reload")
        assert reload.returncode == ExitCode.TARGET
        assert "its lifespan failed: RuntimeError: no database" in reload.stderr + reload.stdout
        assert "in life" in gateway.log, "the traceback"
        await client.send("still here")
        assert await client.recv() == "still here"
        assert (await get(gateway.port, "/", ("Connection", "close"))).body == b'"old"'
        write(tmp_path, "new")
        reload = await asyncio.to_thread(gateway.command, "reload")
        assert reload.returncode == ExitCode.OK, reload.stderr
        assert (await get(gateway.port, "/", ("Connection", "close"))).body == b'"new"'


async def test_a_lifespan_that_fails_at_the_start_ends_the_gateway(tmp_path: Path) -> None:
    gateway = Gateway(write(tmp_path, "broken", start="raise RuntimeError('no database')"), workers=1)
    try:
        gateway.launch()
        assert await asyncio.to_thread(gateway.wait) == ExitCode.TARGET
        assert "its lifespan failed: RuntimeError: no database" in gateway.log
    finally:
        await asyncio.to_thread(gateway.close)


async def test_a_reload_finishes_requests_and_closes_websockets_with_1012(tmp_path: Path) -> None:
    async with running_gateway(write(tmp_path, "one"), workers=1) as gateway, gateway.connect("/ws") as client:
        async with Raw(gateway.port) as busy, Raw(gateway.port) as quiet:
            await quiet.send(head("GET", "/"))
            await quiet.receive()
            await busy.send(head("POST", "/slow", fields=[("Content-Length", "7")]) + b"at ")
            await client.send("they have arrived")
            await client.recv()
            reload = asyncio.create_task(asyncio.to_thread(gateway.command, "reload"))
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert "come back within" in closed.value.rcvd.reason
            assert await quiet.receive_all() == b""
            await busy.send(b"last")
            answer = await busy.answer()
            assert (answer.status, answer.get("connection"), answer.body) == (200, "close", b'"at last"')
            assert (await reload).returncode == ExitCode.OK
        assert await asyncio.to_thread(gateway.wait_for_line, "its lifespan has ended")


async def test_a_stop_closes_websockets_with_1001_and_ends_the_application(tmp_path: Path) -> None:
    async with running_gateway(write(tmp_path, "one"), workers=2) as gateway:
        async with gateway.connect("/ws") as client, Raw(gateway.port) as quiet:
            await quiet.send(head("GET", "/"))
            await quiet.receive()
            gateway.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        assert await asyncio.to_thread(gateway.wait) == ExitCode.OK
        assert gateway.log.count("its lifespan has ended") == 2


async def test_a_stop_names_the_request_that_it_cuts() -> None:
    async with running_gateway(EDGES, "--set", "stop_timeout=1", workers=1) as gateway, Raw(gateway.port) as raw:
        await raw.send(head("GET", "/early"))
        assert (await get(gateway.port, "/waited", ("Connection", "close"))).status == 200
        assert await asyncio.to_thread(gateway.stop) == ExitCode.FORCED_STOP
        assert "1 handlers running:" in gateway.log
        assert "early" in gateway.log


async def test_one_line_a_connection_says_what_it_was() -> None:
    async with running_gateway(EDGES, workers=1) as gateway:
        async with Raw(gateway.port) as raw:
            await raw.send(head("GET", "/stream") + head("GET", "/closing?token=hunter2"))
            await raw.receive_all()
        async with gateway.connect("/echo?token=hunter2") as client:
            await client.send("one")
            await client.recv()
            await client.close(4001)
        assert await asyncio.to_thread(gateway.wait_for_line, "kind=websocket")
        log = gateway.log
        assert log.count("access client=127.0.0.1") == 2
        assert "kind=http method=GET path=/closing status=200" in log.replace('"', "")
        assert "requests=2" in log
        assert "messages_in=1 messages_out=1 close_code=4001" in log
        assert "hunter2" not in log


async def test_behind_a_trusted_proxy_each_request_has_its_own_client_and_is_routed_by_itself() -> None:
    async with running_gateway(EDGES, "--set", "trusted_proxies=127.0.0.1", workers=1) as gateway:
        for client, scheme in (("203.0.113.1", "https"), (None, "http"), ("203.0.113.3", "https")):
            fields = [("X-Forwarded-For", client), ("X-Forwarded-Proto", scheme)] if client else []
            async with Raw(gateway.port) as raw:
                await raw.send(head("GET", "/scope", fields=fields) * 2)
                answers = await raw.receive_all()
            assert answers.count(b"HTTP/1.1 200 ") == 1, "the next may be another client's"
            assert b"\r\nconnection: close\r\n" in answers
            shown = json.loads(answers.partition(b"\r\n\r\n")[2])
            assert (shown["client"], shown["scheme"]) == (client or "127.0.0.1", repr(scheme))


async def test_native_websockets_static_files_and_an_asgi_application_share_a_port() -> None:
    async with running_gateway(f"{APPS / 'mixed.py'}:app", workers=1) as gateway:
        async with gateway.connect("/native") as client:
            assert await client.recv() == "native"
        async with gateway.connect("/echo") as client:
            await client.send("asgi")
            assert await client.recv() == "asgi"
        async with Raw(gateway.port) as raw:
            await raw.send(head("GET", "/stream") + head("GET", "/page.txt"))
            answers = await raw.receive_all()
        assert b"piece 49;" in answers
        assert answers.endswith(b"A page.\n")
        async with Raw(gateway.port) as raw:
            await raw.send(head("GET", "/stream") + upgrade("/native"))
            while b"native" not in (answers := await raw.receive()):
                pass
        assert b"HTTP/1.1 101" in answers


async def test_a_factory_in_another_folder_makes_the_application() -> None:
    options = ("--factory", "--app-dir", str(APPS))
    async with running_gateway("mixed:make", *options, workers=1) as gateway:
        answer = await get(gateway.port, "/closing")
        assert (answer.status, answer.body) == (200, b"the last")
        checked = await asyncio.to_thread(gateway.command, "status", "--json")
        assert checked.returncode == 0


async def test_a_navigation_and_a_websocket_get_the_gateway_s_cookie_and_nothing_else_does() -> None:
    async with running_gateway(EDGES, workers=2) as gateway:
        assert (await get(gateway.port, "/closing")).cookie is None
        answer = await get(gateway.port, "/closing", ("Sec-Fetch-Mode", "navigate"))
        assert answer.cookie is not None
        assert answer.get("cache-control") == "private"
        async with connect(gateway.ws_url + "/echo", proxy=None) as client:
            assert gateway.cookie_of(client) is not None
        async with gateway.connect("/echo", cookie=answer.cookie) as client:
            assert gateway.cookie_of(client) is None
