"""Connections of an ASGI application in this process: what one turn of the loop more or less shows."""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.raw import head, upgrade
from support.waiting import wait_until

from stickygw import App
from stickygw.apps.arrival import Arrival
from stickygw.apps.asgi.http_connection import HttpConnection
from stickygw.connections.flow import HIGH_WATER_BYTES, RECEIVE_BYTES
from stickygw.connections.transport import SocketTransport
from stickygw.routing.request_head import Head, examine
from stickygw.testing import AppClient
from stickygw.types import HandOverId
from stickygw.wire.link import Offer

marked: contextvars.ContextVar[str] = contextvars.ContextVar("marked", default="nothing")


async def answered(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def counting(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    await answered(send, b"%d bytes, context %s" % (size, marked.get().encode()))
    marked.set("the request before")


class Served:
    """One connection, the client's end of which is a blocking socket."""

    def __init__(self, client: AppClient, ours: socket.socket) -> None:
        self._client = client
        self._ours = ours
        self.ended = 0

    @property
    def connection(self) -> HttpConnection:
        [connection] = self._client.runtime.connections
        assert isinstance(connection, HttpConnection)
        return connection

    async def received(self, *, until: bytes) -> bytes:
        data = b""
        async with asyncio.timeout(10):
            while until not in data:
                data += await asyncio.get_running_loop().sock_recv(self._ours, 1 << 20)
        return data

    def send(self, data: bytes) -> None:
        self._ours.setblocking(False)
        assert self._ours.send(data) == len(data)


@asynccontextmanager
async def served(app: Callable[..., Any], data: bytes, **settings: Any) -> AsyncIterator[Served]:
    """A connection on which the request that `data` begins with has arrived."""
    async with AppClient(App(http=app), **settings) as client:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            one = Served(client, ours)
            transport = SocketTransport(theirs, client.runtime.loop, client.runtime.flusher)
            first = examine(data)
            assert isinstance(first, Head)

            def ended() -> None:
                one.ended += 1

            offer = Offer(HandOverId(1), None, 0, None, "127.0.0.1", 1, False, "test")
            arrival = Arrival(offer, first, data[first.size :], transport, ended)
            await client._endpoint.serve(arrival)
            yield one


async def many_turns() -> None:
    """What can happen in this process by itself has happened then: what is sent here is there at once."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_megabyte_in_pieces_of_one_byte_is_one_body() -> None:
    size = 1 << 20
    async with served(counting, head("POST", "/", fields=[("Content-Length", str(size))])) as one:
        for _ in range(size):
            one.connection.data_received(b"x")
        assert b"%d bytes" % size in await one.received(until=b"bytes")


async def test_a_request_s_task_has_nothing_of_the_one_before_in_its_context() -> None:
    async with served(counting, head("GET", "/") * 2) as one:
        answers = await one.received(until=b"nothing")
        while answers.count(b"context") < 2:
            answers += await one.received(until=b"context")
        assert answers.count(b"context nothing") == 2


async def test_head_and_first_piece_of_an_answer_leave_in_one_write() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await send({"type": "http.response.body", "body": b"dy"})

    async with served(slow, head("GET", "/")) as one:
        await begun.wait()
        assert one.connection._socket.sent_bytes == one.connection._socket.outbox_bytes == 0
        go_on.set()
        data = await asyncio.get_running_loop().sock_recv(one._ours, 1 << 20)
        assert data.startswith(b"HTTP/1.1 200 ")
        assert b"\r\n\r\nbo" in data


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
async def test_the_head_of_an_answer_without_body_is_not_held_back(method: str, status: int) -> None:
    async def bodiless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async with served(bodiless, head(method, "/")) as one:
        assert b"HTTP/1.1 %d " % status in await one.received(until=b"\r\n\r\n")


async def test_an_application_that_fails_before_the_first_piece_still_shows_the_head() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        raise RuntimeError("on purpose")

    async with served(failing, head("GET", "/")) as one:
        assert b"HTTP/1.1 200 " in await one.received(until=b"\r\n\r\n")
        await wait_until(lambda: one.ended == 1)


async def test_a_further_request_waits_in_the_kernel_until_the_answer_before_it_has_left() -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answered(send, bytes(4_000_000))

    async with served(large, head("GET", "/") * 3) as one:
        connection = one.connection
        await wait_until(lambda: connection._socket.blocked_since is not None)
        one.send(head("GET", "/more") * 1000)
        await many_turns()
        assert len(connection._pending) < 200, "what was sent meanwhile was not read"
        assert connection._requests == 1
        await one.received(until=b"HTTP/1.1 200 OK\r\n" * 0 + b"\0" * 100)
        await wait_until(lambda: _drained(one) and connection._requests == 2)


async def test_what_is_behind_a_request_that_waits_for_its_answer_stays_in_the_kernel() -> None:
    go_on = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await go_on.wait()
        await answered(send, b"done")

    async with served(slow, head("GET", "/")) as one:
        for _ in range(4):
            one.send(head("GET", "/more") * 800)
            await many_turns()
        assert len(one.connection._pending) <= RECEIVE_BYTES
        go_on.set()
        await wait_until(lambda: _drained(one) and one.connection._requests == 3201)


def _drained(one: Served) -> bool:
    try:
        return one._ours.recv(1 << 20) != b""
    except BlockingIOError:
        return True


async def test_an_application_that_writes_more_than_the_client_reads_has_to_wait() -> None:
    written = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})
            written += 1
            if (await asyncio.sleep(0)) is None and written > 10_000:
                raise AssertionError("it never waits")

    async with served(endless, head("GET", "/")) as one:
        connection = one.connection
        await wait_until(lambda: connection._transport.is_write_paused)
        before = written
        await many_turns()
        assert written <= before + 1
        assert connection._socket.outbox_bytes < HIGH_WATER_BYTES + 20_000
        connection.look(float("inf"))  # nobody has read for ever
        await wait_until(lambda: one.ended == 1)
        [task] = one._client.runtime.tasks
        task.cancel()


@pytest.mark.parametrize(("sent", "status"), [(b"", b""), (b"GET / HT", b"408")])
async def test_a_quiet_kept_connection_is_closed_and_one_with_half_a_head_is_told(sent: bytes, status: bytes) -> None:
    async with served(counting, head("GET", "/")) as one:
        await one.received(until=b"context")
        connection = one.connection
        if sent:
            one.send(sent)
            await wait_until(lambda: connection._pending == sent)
        connection.look(float("inf"))
        data = b""
        while piece := await asyncio.get_running_loop().sock_recv(one._ours, 65536):
            data += piece
        assert data[9:12] == status
    assert one.ended == 1


async def test_an_answer_that_is_still_being_read_is_not_taken_for_a_quiet_connection() -> None:
    async def large(scope: Any, receive: Any, send: Any) -> None:
        await answered(send, bytes(4_000_000) if scope["path"] == "/" else b"the second")

    async with served(large, head("GET", "/") + head("GET", "/second")) as one:
        await wait_until(lambda: one.connection._socket.blocked_since is not None)
        one.connection._overdue()  # as after so many seconds
        assert (await one.received(until=b"the second")).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("is_drained_first", [False, True])
async def test_who_is_answered_before_the_body_has_come_holds_up_no_drain(is_drained_first: bool) -> None:
    go_on = asyncio.Event()

    async def early(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await go_on.wait()
        await answered(send, b"too large")

    async with served(early, head("POST", "/", fields=[("Content-Length", "10")])) as one:
        runtime = one._client.runtime
        if not is_drained_first:
            go_on.set()
            await one.received(until=b"too large")
        runtime.drain(1012, "", within=5, spread_seconds=0)
        go_on.set()
        while await asyncio.get_running_loop().sock_recv(one._ours, 65536):
            pass
        one._ours.close()
        await wait_until(lambda: not runtime.connections)


async def test_who_is_answered_and_never_sends_the_body_is_closed_after_a_while() -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        await answered(send, b"too large")

    async with served(early, head("POST", "/", fields=[("Content-Length", "10")])) as one:
        await one.received(until=b"too large")
        one.connection.look(float("inf"))
        assert await asyncio.get_running_loop().sock_recv(one._ours, 65536) == b""


async def test_an_interim_status_of_the_application_does_not_end_its_answer_midway() -> None:
    async def hints(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 103, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with served(hints, head("GET", "/")) as one:
        assert (await one.received(until=b"\r\n\r\nok")).startswith(b"HTTP/1.1 103 ")


async def test_a_client_of_http_1_0_is_not_told_to_continue() -> None:
    async with served(
        counting, head("POST", "/", version="1.0", fields=[("Expect", "100-continue"), ("Content-Length", "1")]) + b"x"
    ) as one:
        assert (await one.received(until=b"1 bytes")).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_that_is_closed_already_leaves_nothing_behind() -> None:
    async with AppClient(App(http=counting)) as client:
        for data in (head("GET", "/"), upgrade("/")):
            ours, theirs = socket.socketpair()
            ours.close()
            transport = SocketTransport(theirs, client.runtime.loop, client.runtime.flusher)
            transport.abort()
            first = examine(data)
            assert isinstance(first, Head)
            ended = asyncio.Event()
            offer = Offer(HandOverId(1), None, 0, None, "127.0.0.1", 1, False, "test")
            await client._endpoint.serve(Arrival(offer, first, b"", transport, ended.set))
            assert ended.is_set()
        assert not client.runtime.connections


async def test_nothing_is_left_of_connections_that_are_over() -> None:
    async with AppClient(App(http=counting)) as client:
        for _ in range(20):
            with pytest.raises(Exception, match="refused"):
                async with client.connect("/"):
                    pass
        asgi = client.runtime.asgi
        assert asgi is not None
        await wait_until(lambda: not client.runtime.connections and not client.runtime.tasks)
        assert not asgi._connections
        assert not asgi._state.connections
