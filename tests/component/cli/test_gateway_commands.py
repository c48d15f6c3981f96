"""Commands on a running gateway, as processes: how they find it, what they send, what they print and exit with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import default_dir, environment, stickygw
from support.fake_primary import STATUS, FakePrimary, failure, fake_primary

from stickygw.errors import ExitCode
from stickygw.ipc.control import MAX_CLIENTS
from stickygw.wire.control import Request
from stickygw.wire.status import SlotStatus, Status, WorkerStatus


@pytest.fixture
async def primary(short_dir: Path) -> AsyncIterator[FakePrimary]:
    """The only gateway there is in `short_dir`."""
    async with fake_primary(default_dir(short_dir)) as primary:
        yield primary


# Finding the gateway


async def test_without_any_gateway_the_error_says_where_it_looked(short_dir: Path) -> None:
    stale = default_dir(short_dir)
    os.makedirs(stale)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale / "control"))
    done = await stickygw(short_dir, "status")
    assert (done.code, done.out) == (ExitCode.NO_GATEWAY, "")
    assert done.err == (
        f"error: no gateway runs: none answers in {stale.parent}/*; "
        "if it has another runtime directory, name it: --runtime-dir DIR\n"
    )


async def test_of_several_gateways_none_is_chosen_but_all_are_listed(short_dir: Path) -> None:
    first, second = default_dir(short_dir, "8000"), default_dir(short_dir, "9000")
    other = {"addresses": ["http://127.0.0.1:9000"], "pid": 12, "target": "other:app"}
    async with fake_primary(first) as one, fake_primary(second, **other) as two:
        done = await stickygw(short_dir, "reload")
        assert done.code == ExitCode.NO_GATEWAY
        assert done.err.splitlines() == [
            "error: 2 gateways run: name one",
            f"error:   --runtime-dir {first}  http://127.0.0.1:8000  pid 4711  chat.py:app",
            f"error:   --runtime-dir {second}  http://127.0.0.1:9000  pid 12  other:app",
        ]
        assert not one.asked("reload")
        assert (await stickygw(short_dir, "reload", "--runtime-dir", str(second))).code == ExitCode.OK
        assert (await stickygw(short_dir, "scale", "2", STICKYGW_RUNTIME_DIR=str(second))).code == ExitCode.OK
        assert [name for name, _ in two.requests] == ["status", "reload", "scale"]


@pytest.mark.parametrize("name", ["nowhere", "x" * 120])
async def test_a_runtime_dir_without_a_gateway_is_named(short_dir: Path, name: str) -> None:
    done = await stickygw(short_dir, "status", "--runtime-dir", str(short_dir / name))
    assert done.code == ExitCode.NO_GATEWAY
    assert done.err.startswith(f"error: no gateway answers at {short_dir / name}/control: ")
    assert len(done.err.splitlines()) == 1


# Facts


async def test_status_as_json_is_what_the_gateway_told(primary, short_dir: Path) -> None:
    done = await stickygw(short_dir, "status", "--json")
    assert (done.code, done.err) == (ExitCode.OK, "")
    assert json.loads(done.out) == STATUS


def test_the_documented_status_has_the_fields_that_the_types_say() -> None:
    assert set(STATUS) == set(Status.__annotations__)
    assert all(set(worker) == set(WorkerStatus.__annotations__) for worker in STATUS["workers"])
    assert all(set(slot) == set(SlotStatus.__annotations__) for slot in STATUS["slots_detail"])


async def test_status_in_a_pipe_is_plain_and_whole_however_narrow_it_is_said_to_be(primary, short_dir: Path) -> None:
    done = await stickygw(short_dir, "status", COLUMNS="20")
    assert (done.code, done.err) == (ExitCode.OK, "")
    assert "\x1b" not in done.out
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[0] == "stickygw 0.1.0  chat.py:app  pid 4711  up 3d04h"
    table = [line.split() for line in lines[4:10]]
    assert table[0] == ["slot", "state", "gen", "pid", "up", "conns", "in/s", "out/s", "CPU", "lag", "RSS", "queued"]
    assert table[1] == ["0", "ready", "3", "20311", "12s", "301", "240", "962", "31%", "2ms", "59.0M", "0"]
    assert table[5][:3] == ["2", "blocked", "2"]
    assert "slot 3: 4 restarts, again in 1.6s: ended with exit status 1" in lines
    assert "slot 0: games=17" in lines
    assert "301811  routed{cookie}" in lines


async def test_what_an_application_says_cannot_command_the_terminal(short_dir: Path) -> None:
    workers = [STATUS["workers"][0] | {"report": {"evil": "\x1b]0;owned\x07[bold]", "line": "a\nb"}}]
    async with fake_primary(default_dir(short_dir), workers=workers) as primary:
        done = await stickygw(short_dir, "status")
        assert r"slot 0: evil=\x1b]0;owned\x07[bold] line=a\nb" in done.out
        primary.answers["reload"] = failure(ExitCode.TARGET, "\x1b[2Jbroken")
        assert (await stickygw(short_dir, "reload")).err.endswith("error: \\x1b[2Jbroken\n")


async def test_why_takes_the_cookie_from_standard_input_alone(primary, short_dir: Path) -> None:
    done = await stickygw(
        short_dir, "why", "--cookie", "-", "--ip", "2001:DB8::0", "--key", "room 7", stdin="stickygw=v1.abc; a=b\n"
    )
    assert (done.code, done.err) == (ExitCode.OK, "")
    assert done.out.splitlines() == [
        "slot 2: cookie",
        "  1. the cookie is signed by this gateway",
        "  2. slot 2 is ready",
    ]
    refused = await stickygw(short_dir, "why", "--cookie", "stickygw=v1.abc")
    assert refused.code == ExitCode.USAGE
    assert "write --cookie - and give it on standard input" in refused.err
    assert primary.asked("why") == [{"cookie": "stickygw=v1.abc; a=b", "ip": "2001:db8::", "key": "room 7"}]


async def test_why_of_a_first_visit_names_no_slot_where_chance_decides(primary, short_dir: Path) -> None:
    primary.answers["why"] = {"slot": None, "reason": "least_loaded", "steps": []}
    assert (await stickygw(short_dir, "why")).out == "no certain slot: least_loaded\n"
    assert json.loads((await stickygw(short_dir, "why", "--json")).out) == primary.answers["why"]
    assert primary.asked("why")[0] == {"cookie": None, "ip": None, "key": None}
    wrong = await stickygw(short_dir, "why", "--ip", "localhost")
    assert (wrong.code, "'localhost' is no IP address" in wrong.err) == (ExitCode.USAGE, True)


async def test_an_address_is_asked_for_as_the_gateway_knows_it(primary, short_dir: Path) -> None:
    for written in ("::ffff:192.0.2.7", "192.0.2.7"):
        await stickygw(short_dir, "why", "--ip", written)
    assert [asked["ip"] for asked in primary.asked("why")] == ["192.0.2.7"] * 2


# Steering


@pytest.mark.parametrize(
    ("arguments", "request_", "said"),
    [
        (("reload",), ("reload", {}), "reloaded: generation 4\n"),
        (("scale", "8"), ("scale", {"slots": 8}), "scaled\n"),
        (("drain", "0"), ("drain", {"slot": 0}), "drained\n"),
        (("restart", "3"), ("restart", {"slot": 3}), "restarted\n"),
    ],
)
async def test_a_command_is_sent_and_its_message_printed(primary, short_dir: Path, arguments, request_, said) -> None:
    primary.progress = {arguments[0]: ["slot 0: ready", "slot 1: ready"]}
    done = await stickygw(short_dir, *arguments)
    assert (done.code, done.out, done.err) == (ExitCode.OK, said, "slot 0: ready\nslot 1: ready\n")
    assert primary.requests[-1] == request_


@pytest.mark.parametrize("arguments", [("scale", "0"), ("scale", "x"), ("scale",), ("drain", "-1"), ("restart", "1.5")])
async def test_a_number_that_cannot_be_one_is_a_usage_error(primary, short_dir: Path, arguments) -> None:
    assert (await stickygw(short_dir, *arguments)).code == ExitCode.USAGE
    assert primary.requests == []


async def test_progress_shows_as_it_comes_and_a_failure_ends_with_the_code_that_the_gateway_names(
    primary, short_dir: Path
) -> None:
    go = asyncio.Event()

    async def fail(_: Request) -> dict[str, Any]:
        await go.wait()
        raise failure(ExitCode.TARGET, "slot 0: ModuleNotFoundError: No module named 'chatt'")

    primary.answers["reload"] = fail
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stickygw.cli", "reload"),
        env=environment(short_dir),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        assert await process.stderr.readline() == b"slot 0: ready\n"
        go.set()
        _, rest = await process.communicate()
    assert rest.decode().splitlines()[1:] == ["error: slot 0: ModuleNotFoundError: No module named 'chatt'"]
    assert process.returncode == ExitCode.TARGET


async def test_interrupting_a_command_says_that_the_gateway_goes_on(primary, short_dir: Path) -> None:
    go, done = asyncio.Event(), asyncio.Event()

    async def wait(_: Request) -> dict[str, Any]:
        await go.wait()
        done.set()
        return {"message": "reloaded"}

    primary.answers["reload"] = wait
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stickygw.cli", "reload"),
        env=environment(short_dir),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(30):
        await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert err.decode().splitlines()[-1] == "no longer waiting: the gateway goes on with the reload"
        assert process.returncode == 128 + signal.SIGINT
        go.set()
        await done.wait()


def a_gateway_process(directory: Path, exit_name: str) -> subprocess.Popen[str]:
    """A fake primary of its own process, which ends with `exit_name` when it is told to stop."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.fake_primary", str(directory), exit_name],
        env=environment(directory),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


@pytest.mark.parametrize(
    ("exit_name", "code", "out", "err"),
    [
        ("OK", ExitCode.OK, "stopped\n", ""),
        (
            "FORCED_STOP",
            ExitCode.FORCED_STOP,
            "",
            "error: the gateway has stopped with FORCED_STOP: what had not ended in time was cut\n",
        ),
        (
            "",
            ExitCode.COMMAND,
            "",
            "error: the gateway ended the connection before it said what became of the command\n",
        ),
    ],
)
async def test_stop_tells_how_the_gateway_ended(short_dir: Path, exit_name: str, code, out: str, err: str) -> None:
    with a_gateway_process(default_dir(short_dir), exit_name) as gateway:
        done = await stickygw(short_dir, "stop")
        assert (done.code, done.out, done.err) == (code, out, err)
        assert gateway.wait(10) == 0


async def test_stop_returns_when_the_gateways_process_is_gone(short_dir: Path) -> None:
    with a_gateway_process(default_dir(short_dir), "OK") as gateway:
        await stickygw(short_dir, "stop")
        assert gateway.poll() is not None


# Telling


async def test_tell_sends_any_json_to_a_place(primary, short_dir: Path) -> None:
    done = await stickygw(short_dir, "tell", "jobs", '{"next": [1, null]}', "--to", "3")
    assert (done.code, done.out) == (ExitCode.OK, "told 4 workers\n")
    primary.answers["tell"] = {"told": 1}
    assert (await stickygw(short_dir, "tell", "jobs")).out == "told 1 worker\n"
    assert json.loads((await stickygw(short_dir, "tell", "jobs", "--to", "least_loaded", "--json")).out) == {"told": 1}
    assert primary.asked("tell") == [
        {"name": "jobs", "payload": {"next": [1, None]}, "to": 3},
        {"name": "jobs", "payload": None, "to": "all"},
        {"name": "jobs", "payload": None, "to": "least_loaded"},
    ]


async def test_ask_prints_the_answers_by_slot_and_fails_if_one_does(primary, short_dir: Path) -> None:
    done = await stickygw(short_dir, "tell", "games", "--ask", "--timeout", "2")
    assert (done.code, done.out) == (ExitCode.OK, 'slot 0: {"games": 17}\nslot 1: null\n')
    assert primary.asked("ask") == [{"name": "games", "payload": None, "to": "all", "timeout": 2.0}]
    primary.answers["ask"] = {"answers": {1: {"error": "no answer within 2 s"}, 0: {"payload": b"raw"}}}
    done = await stickygw(short_dir, "tell", "games", "--ask")
    assert (done.code, done.out) == (ExitCode.COMMAND, 'slot 0: "raw"\n')
    assert done.err == "error: slot 1: no answer within 2 s\n"
    done = await stickygw(short_dir, "tell", "games", "--ask", "--json")
    assert done.code == ExitCode.COMMAND
    assert json.loads(done.out)["answers"]["1"] == {"error": "no answer within 2 s"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "next"), "a text has quotes of its own: '\"next\"'"),
        (("jobs", "--to", "some"), "--to: all, least_loaded or a slot's number, not 'some'"),
        (("jobs", "--ask", "--timeout", "0"), "--timeout"),
        (("jobs", "--ask", "--timeout", "61"), "--timeout"),
        ((), "Missing argument 'NAME'"),
    ],
)
async def test_a_message_that_cannot_be_one_is_a_usage_error(primary, short_dir: Path, arguments, words: str) -> None:
    done = await stickygw(short_dir, "tell", *arguments)
    assert (done.code, words in done.err) == (ExitCode.USAGE, True)
    assert primary.requests == []


async def test_what_the_protocol_cannot_carry_is_an_error_and_no_defect(primary, short_dir: Path) -> None:
    done = await stickygw(short_dir, "tell", "jobs", str(2**64))
    assert done.code == ExitCode.COMMAND
    assert done.err.startswith("error: tell cannot be sent: ")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "ended the connection before it said"),
        (b"\x00\x00\x00\x05\x81", "ended the connection before it said"),
        (b"\x00\x00\x00\x01\x80", "cannot be understood: no reply"),
        (b"\xff" * 4, "cannot be understood: a message of"),
    ],
    ids=["nothing", "half", "no reply", "a huge length"],
)
async def test_what_is_no_answer_is_an_error_of_the_command(short_dir: Path, reply: bytes, words: str) -> None:
    directory = default_dir(short_dir)
    os.makedirs(directory)

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(reply)
        writer.close()

    async with await asyncio.start_unix_server(leave, directory / "control"):
        done = await stickygw(short_dir, "scale", "2")
    assert (done.code, len(done.err.splitlines())) == (ExitCode.COMMAND, 1)
    assert words in done.err


async def test_a_refused_client_learns_why(primary, short_dir: Path) -> None:
    clients = [await asyncio.open_unix_connection(default_dir(short_dir) / "control") for _ in range(MAX_CLIENTS)]
    done = await stickygw(short_dir, "reload")
    assert (done.code, done.err.startswith("error: 32 clients use")) == (ExitCode.COMMAND, True)
    for _, writer in clients:
        writer.close()
