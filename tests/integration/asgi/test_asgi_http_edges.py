"""The edges of HTTP, answer by answer beside uvicorn, which serves the same application."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.raw import Raw, head
from support.uvicorn_server import Uvicorn

APPS = Path(__file__).parent / "apps"
ROOT = ("--root-path", "/below")


@pytest.fixture(scope="module")
def ours() -> Iterator[Gateway]:
    with Gateway(f"{APPS / 'edges.py'}:app", "--set", "root_path=/below", workers=1) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def theirs() -> Iterator[Uvicorn]:
    with Uvicorn("edges:app", directory=str(APPS), options=ROOT) as server:
        yield server


def normal(answers: bytes) -> bytes:
    """What has to differ: the date."""
    return re.sub(rb"(?mi)^date: [^\r]*\r\n", b"", answers)


def request(method: str, target: str, *fields: tuple[str, str], body: bytes = b"", version: str = "1.1") -> bytes:
    more = list(fields)
    if body and not any(name.lower() == "transfer-encoding" for name, _ in fields):
        more.append(("Content-Length", str(len(body))))
    return head(method, target, host="same", fields=more, version=version) + body


LAST = request("GET", "/closing")
"""Ends each exchange, so that all answers can be read to the end of the connection."""
CHUNKED = ("Transfer-Encoding", "chunked")

EXCHANGES = {
    "get": request("GET", "/scope?a=b&c=%20", ("X-Mixed", " padded"), ("X-Mixed", "twice")) + LAST,
    "a quoted slash": request("GET", "/scope%2Fx?q") + LAST,
    "head": request("HEAD", "/echo") + request("HEAD", "/stream") + LAST,
    "options": request("OPTIONS", "/scope") + LAST,
    "post": request("POST", "/echo", body=b"hello") + LAST,
    "an empty body": request("POST", "/echo", ("Content-Length", "0")) + LAST,
    "chunked": request("POST", "/echo", CHUNKED, body=b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n") + LAST,
    "trailers": request("POST", "/scope", CHUNKED, body=b"1\r\nx\r\n0\r\nX-Trailer: 1\r\n\r\n") + LAST,
    "a long body": request("POST", "/size", body=bytes(3_000_000)) + LAST,
    "a body that nobody reads": request("POST", "/unread", body=bytes(200_000)) + LAST,
    "pipelined": request("GET", "/stream") * 3 + request("POST", "/echo", body=b"x") * 20 + LAST,
    "streaming": request("GET", "/stream") + LAST,
    "a large answer": request("GET", "/big") + LAST,
    "204": request("GET", "/bare?204") + LAST,
    "304": request("GET", "/bare?304") + LAST,
    "404": request("GET", "/bare?404") + LAST,
    "an unregistered status": request("GET", "/bare?599") + LAST,
    "http 1.0": request("GET", "/stream", version="1.0"),
    "http 1.0 keep-alive": request("GET", "/echo", ("Connection", "keep-alive"), version="1.0"),
    "connection close": request("GET", "/echo", ("Connection", "close")) + LAST,
    "the app raises": request("GET", "/raises"),
    "the app raises within its answer": request("GET", "/raises-late"),
    "the app gives no answer": request("GET", "/returns"),
    "an answer that is too short": request("GET", "/too-short"),
    "an answer that is too long": request("GET", "/too-long"),
    "an answer with a line break in a field": request("GET", "/bad-header"),
    "bytes that are no chunk": request("POST", "/echo", CHUNKED, body=b"zz\r\n"),
}


async def said(port: int, data: bytes) -> bytes:
    async with Raw(port) as raw:
        sending = asyncio.create_task(raw.send(data))
        answers = await raw.receive_all()
        sending.cancel()
        await asyncio.wait([sending])
        return answers


@pytest.mark.parametrize("name", EXCHANGES)
async def test_each_answer_is_that_of_uvicorn(ours: Gateway, theirs: Uvicorn, name: str) -> None:
    data = EXCHANGES[name]
    our_answers, their_answers = await said(ours.port, data), await said(theirs.port, data)
    if name == "bytes that are no chunk":  # the words differ
        our_answers, their_answers = our_answers[:12], their_answers[:12]
    assert normal(our_answers) == normal(their_answers)
    assert our_answers or name == "an answer with a line break in a field"


async def test_a_method_that_is_not_registered_is_the_application_s_to_know(ours: Gateway) -> None:
    data = await said(ours.port, request("BREW", "/scope") + LAST)
    assert data.startswith(b"HTTP/1.1 200 ")
    assert b"BREW" in data, "uvicorn refuses it; a method is any token (RFC 9110, 9.1)"


async def test_the_white_space_around_a_value_is_no_part_of_it(ours: Gateway) -> None:
    data = await said(ours.port, request("GET", "/scope", ("X-Padded", " \t both sides \t ")) + LAST)
    assert b"(b'x-padded', b'both sides')" in data, "uvicorn keeps what stands behind it (RFC 9110, 5.5)"


async def test_100_continue_is_said_when_the_application_wants_the_body(ours: Gateway, theirs: Uvicorn) -> None:
    for port in (ours.port, theirs.port):
        async with Raw(port) as raw:
            await raw.send(request("POST", "/echo", ("Expect", "100-continue"), ("Content-Length", "4")))
            assert await raw.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await raw.send(b"body" + LAST)
            assert b"\r\n\r\nbodyHTTP/1.1 200" in await raw.receive_all()


@pytest.mark.parametrize("sent", [request("GET", "/early"), head("POST", "/echo", fields=[("Content-Length", "9")])])
@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_client_that_leaves_early_is_told_of(
    ours: Gateway, theirs: Uvicorn, sent: bytes, is_reset: bool
) -> None:
    stories = []
    for port in (ours.port, theirs.port):
        async with Raw(port) as raw:
            await said(port, request("GET", "/forget", ("Connection", "close")))
            await raw.send(sent)
            assert b"[]" not in await said(port, request("GET", "/waited", ("Connection", "close")))
            if is_reset:
                raw.reset()
        async with Raw(port) as raw:
            await raw.send(request("GET", "/seen", ("Connection", "close")))
            stories.append(json.loads((await raw.answer()).body.split(b"\r\n")[1]))
    assert stories[0] == stories[1] != []


async def test_a_slow_reader_gets_every_byte(ours: Gateway) -> None:
    async with Raw(ours.port, receive_buffer=8192) as raw:
        await raw.send(request("GET", "/big", version="1.0"))
        data = b""
        while piece := await raw.receive(30_000):
            data += piece
    assert data.count(b"\0") == 64 * 65536


async def test_a_head_that_the_gate_refuses_on_a_kept_connection_is_answered_and_closed(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(request("GET", "/stream") + b"GET /scope HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + LAST)
        answers = await raw.receive_all()
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400 Bad Request" in answers
    assert answers.endswith(b"Exactly one valid Host field is needed (RFC 9112, 3.2).\n")


async def test_the_health_answer_comes_before_the_application_on_a_kept_connection_too(ours: Gateway) -> None:
    async with Raw(ours.port) as raw:
        await raw.send(request("GET", "/stream") + request("GET", "/healthz"))
        assert (await raw.receive_all()).endswith(b'{"status":"ok","slot":0}\n')
