"""The control socket: who may command, what hostile clients can do, and what is still done when one goes away."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fake_primary import FakePrimary, failure, fake_primary
from support.waiting import wait_until

from stickygw.errors import ExitCode, RuntimeDirError
from stickygw.ipc import control
from stickygw.ipc.control import MAX_CLIENTS, ControlServer
from stickygw.wire.control import (
    MAX_MESSAGE_BYTES,
    Decoder,
    Failure,
    Progress,
    Reply,
    Request,
    Result,
    decode_reply,
    encode,
)

SECONDS = 10.0


class RawClient:
    """A client that may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._decoder = Decoder(decode_reply)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, do: str, **arguments: Any) -> None:
        self.send(encode(Request(do, arguments)))

    async def reply(self) -> Reply | None:
        """The next reply; None: the server has closed."""
        async with asyncio.timeout(SECONDS):
            while (message := self._decoder.next_message()) is None:
                try:
                    data = await self._reader.read(65536)
                except ConnectionResetError:  # it closed with bytes of ours unread
                    return None
                if not data:
                    return None
                self._decoder.feed(data)
            return message

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[RawClient]:
    client = RawClient(*await asyncio.open_unix_connection(directory / "control"))
    try:
        yield client
    finally:
        client.close()


def bytes_until_the_end(client: socket.socket) -> int:
    return sum(len(data) for data in iter(lambda: client.recv(1 << 20), b""))


@pytest.fixture
async def primary(short_dir: Path) -> AsyncIterator[FakePrimary]:
    async with fake_primary(short_dir) as primary:
        yield primary


async def assert_it_still_answers(directory: Path) -> None:
    async with connected(directory) as client:
        client.ask("tell")
        assert await client.reply() == Result({"told": 4})


async def test_progress_comes_first_and_the_result_last_request_after_request(primary, short_dir: Path) -> None:
    async with connected(short_dir) as client:
        client.ask("reload")
        client.ask("scale", slots=4)
        assert [await client.reply() for _ in range(4)] == [
            Progress("slot 0: ready"),
            Progress("slot 1: ready"),
            Result({"message": "reloaded: generation 4"}),
            Result({"message": "scaled"}),
        ]
    assert primary.requests == [("reload", {}), ("scale", {"slots": 4})]


async def test_requests_of_several_clients_are_carried_out_at_once(primary, short_dir: Path) -> None:
    end = asyncio.Event()

    async def wait(_: Request) -> dict[str, Any]:
        await end.wait()
        return {"message": "done"}

    primary.answers["drain"] = wait
    async with connected(short_dir) as slow, connected(short_dir) as quick:
        slow.ask("drain", slot=1)
        await wait_until(lambda: primary.asked("drain"))
        quick.ask("scale", slots=2)
        assert await quick.reply() == Result({"message": "scaled"})
        end.set()
        assert await slow.reply() == Result({"message": "done"})


async def test_an_operators_error_keeps_its_exit_code_and_a_defect_is_logged_not_told(
    primary, short_dir: Path, caplog
) -> None:
    primary.answers |= {"reload": failure(ExitCode.TARGET, "no module"), "scale": ZeroDivisionError("inside")}
    async with connected(short_dir) as client:
        for do in ("walk", "scale"):
            client.ask(do)
        assert await client.reply() == Failure(ExitCode.COMMAND, "unknown command 'walk'")
        defect = await client.reply()
        assert isinstance(defect, Failure)
        assert defect.code is ExitCode.INTERNAL
        assert "inside" not in defect.message
        assert "ZeroDivisionError: inside" in caplog.text
        client.ask("reload")
        assert [await client.reply() for _ in range(3)][-1] == Failure(ExitCode.TARGET, "no module")


@pytest.mark.parametrize("answer", [{"x": "y" * MAX_MESSAGE_BYTES}, {"x": {1, 2}}], ids=["too long", "no msgpack"])
async def test_an_answer_that_cannot_be_sent_is_an_error_of_the_command(primary, short_dir: Path, answer) -> None:
    primary.answers["why"] = answer
    async with connected(short_dir) as client:
        client.ask("why")
        reply = await client.reply()
        assert isinstance(reply, Failure)
        assert (reply.code, reply.message[:26]) == (ExitCode.COMMAND, "the answer cannot be sent:")
        client.ask("tell")
        assert await client.reply() == Result({"told": 4})


HOSTILE = {
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", "at most"),
    "a huge length": (b"\xff\xff\xff\xff", "at most"),
    "no msgpack": (b"\x00\x00\x00\x01\xc1", "no msgpack"),
    "no map": (b"\x00\x00\x00\x01\x01", "no request"),
    "an empty message": (b"\x00\x00\x00\x00", "no msgpack"),
    "another version": (encode(Request("status", {})).replace(b"\xa1v\x01", b"\xa1v\x07"), "version 7"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_is_no_request_gets_an_error_and_the_end(primary, short_dir: Path, kind: str) -> None:
    data, words = HOSTILE[kind]
    async with connected(short_dir) as client:
        client.send(data)
        reply = await client.reply()
        assert isinstance(reply, Failure)
        assert reply.code is ExitCode.COMMAND
        assert words in reply.message
        assert await client.reply() is None
    assert primary.requests == []
    await assert_it_still_answers(short_dir)


async def test_half_a_request_ends_with_an_error_and_half_of_one_that_is_given_up_does_nothing(
    primary, short_dir: Path, monkeypatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.1)
    half = encode(Request("reload", {}))[:-1]
    late = Failure(ExitCode.COMMAND, "a request must be complete within 0.1 s")
    async with connected(short_dir) as client:
        client.send(half)
        assert await client.reply() == late
    async with connected(short_dir) as client:
        client.ask("scale", slots=1)
        client.send(half)
        assert await client.reply() == Result({"message": "scaled"})
        assert await client.reply() == late
        assert await client.reply() is None
    async with connected(short_dir) as client:
        client.send(half)
    await assert_it_still_answers(short_dir)
    assert primary.asked("reload") == []


async def test_a_client_that_asks_nothing_is_closed_but_not_one_that_asks_now_and_then(
    primary, short_dir: Path, monkeypatch
) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.5)
    async with connected(short_dir) as silent, connected(short_dir) as regular:
        silent_end = asyncio.ensure_future(silent.reply())
        while not silent_end.done():
            regular.ask("tell")
            assert await regular.reply() == Result({"told": 4})
            await asyncio.wait({silent_end}, timeout=0.05)
        assert silent_end.result() is None
        regular.ask("tell")
        assert await regular.reply() == Result({"told": 4})


async def test_one_client_more_than_allowed_is_refused_and_served_once_another_has_left(
    primary, short_dir: Path
) -> None:
    clients = [RawClient(*await asyncio.open_unix_connection(short_dir / "control")) for _ in range(MAX_CLIENTS)]
    for client in clients:
        client.ask("tell")
        assert await client.reply() == Result({"told": 4})
    async with connected(short_dir) as one_more:
        reply = await one_more.reply()
        assert isinstance(reply, Failure)
        assert reply.message.startswith("32 clients use the control socket already")
        assert await one_more.reply() is None
    clients.pop().close()

    async def is_served() -> bool:
        async with connected(short_dir) as client:
            client.ask("tell")
            return isinstance(await client.reply(), Result)

    await wait_until(is_served)
    for client in clients:
        client.close()


async def test_a_process_of_another_user_may_not_command(short_dir: Path) -> None:
    primary = FakePrimary()
    server = ControlServer(short_dir / "control", primary.handle, uid=os.geteuid() + 1)
    await server.start()
    async with connected(short_dir) as client:
        client.ask("stop")
        reply = await client.reply()
        assert isinstance(reply, Failure)
        assert "may not command this gateway" in reply.message
        assert await client.reply() is None
    assert primary.requests == []
    server.close()


async def test_a_command_goes_on_when_its_client_has_left(primary, short_dir: Path, caplog) -> None:
    left, done = asyncio.Event(), asyncio.Event()

    async def half_way(_: Request) -> dict[str, Any]:
        await left.wait()
        done.set()
        return {"message": "done"}

    primary.answers["restart"] = half_way
    primary.progress["restart"] = ["slot 1: starting"]
    async with connected(short_dir) as client:
        client.ask("restart", slot=1)
        assert await client.reply() == Progress("slot 1: starting")
    left.set()
    async with asyncio.timeout(SECONDS):
        await done.wait()
    await assert_it_still_answers(short_dir)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_progress_that_nobody_reads_is_left_out_beyond_a_bound(primary, short_dir: Path) -> None:
    lines = 2000
    primary.progress["reload"] = [f"{number:06} " + "x" * 1000 for number in range(lines)]
    async with connected(short_dir) as client:
        client.ask("reload")
        replies = [await client.reply()]
        while not isinstance(replies[-1], Result):
            replies.append(await client.reply())
    assert 64 < len(replies) < lines / 2
    assert replies[-1] == Result({"message": "reloaded: generation 4"})


async def test_a_client_that_does_not_take_its_answer_is_cut(primary, short_dir: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(control, "SEND_SECONDS", 0.1)
    primary.answers["why"] = {"x": "y" * 900_000}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short_dir / "control"))
        client.sendall(encode(Request("why", {})))
        await wait_until(lambda: "did not take its answer" in caplog.text)
        client.settimeout(SECONDS)
        taken = await asyncio.to_thread(bytes_until_the_end, client)
        assert 0 < taken < 900_000
    await assert_it_still_answers(short_dir)


async def test_drain_delivers_the_answers_under_way_and_takes_no_more(short_dir: Path) -> None:
    primary = FakePrimary()
    server = ControlServer(short_dir / "control", primary.handle)
    await server.start()
    end = asyncio.Event()

    async def stop(_: Request) -> dict[str, Any]:
        await end.wait()
        return {"exit": "OK", "long": "x" * 500_000}

    primary.answers["stop"] = stop
    async with connected(short_dir) as stopper, connected(short_dir) as idle:
        stopper.ask("stop")
        await wait_until(lambda: primary.asked("stop"))
        draining = asyncio.ensure_future(server.drain(SECONDS))
        assert await idle.reply() is None
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await asyncio.open_unix_connection(short_dir / "control")
        stopper.ask("reload")
        assert not draining.done()
        end.set()
        reply, _ = await asyncio.gather(stopper.reply(), draining)
        assert isinstance(reply, Result)
        assert reply.facts["exit"] == "OK"
        server.close()
        assert await stopper.reply() is None
    assert primary.asked("reload") == []


async def test_what_is_drained_is_in_the_kernel_where_it_outlives_the_process(short_dir: Path) -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        one.setblocking(False)
        unread = one.send(bytes(MAX_MESSAGE_BYTES))
    primary = FakePrimary()
    primary.answers["stop"] = {"more than the kernel holds": "x" * (unread + 20_000)}
    server = ControlServer(short_dir / "control", primary.handle)
    await server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(short_dir / "control"))
        client.sendall(encode(Request("stop", {})))
        await wait_until(primary.is_stopping.is_set)
        draining = asyncio.ensure_future(server.drain(SECONDS))
        done, _ = await asyncio.wait([draining], timeout=0.1)
        assert not done
        client.settimeout(SECONDS)
        taken = await asyncio.to_thread(bytes_until_the_end, client)
        await draining
    assert taken > unread + 20_000
    server.close()


async def test_drain_does_not_wait_longer_than_it_may_and_close_ends_what_is_left(short_dir: Path) -> None:
    primary = FakePrimary()
    server = ControlServer(short_dir / "control", primary.handle)
    await server.start()
    ended = asyncio.Event()

    async def never(_: Request) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    primary.answers["stop"] = never
    async with connected(short_dir) as client:
        client.ask("stop")
        await wait_until(lambda: primary.asked("stop"))
        async with asyncio.timeout(SECONDS):
            await server.drain(0.05)
        assert not ended.is_set()
        server.close()
        server.close()
        assert await client.reply() is None
        assert ended.is_set()


async def test_only_the_owner_can_open_the_socket_and_it_is_gone_after_the_end(primary, short_dir: Path) -> None:
    path = short_dir / "control"
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


async def test_a_socket_left_behind_is_replaced_and_closing_removes_it(short_dir: Path) -> None:
    path = short_dir / "control"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with fake_primary(short_dir):
        await assert_it_still_answers(short_dir)
    assert not path.exists()


async def test_what_cannot_be_made_is_named(short_dir: Path) -> None:
    (short_dir / "control").mkdir()
    with pytest.raises(RuntimeDirError, match=r"the control socket .*/control cannot be made: "):
        await ControlServer(short_dir / "control", FakePrimary().handle).start()
    with pytest.raises(RuntimeDirError, match="AF_UNIX path too long"):
        await ControlServer(short_dir / ("x" * 120), FakePrimary().handle).start()
