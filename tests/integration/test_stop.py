"""How a gateway ends: gracefully, at once, by force, or before it has begun. Each end has its exit code."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.client import Client
from support.closes import close_of
from support.gateway import Gateway, running_gateway
from support.logs import whole_log
from support.raw import Raw, parsed, upgrade
from support.waiting import wait_until

from stickygw.errors import ExitCode
from stickygw.testing.processes import processes

APPS = Path(__file__).parent / "apps"
STOPPING = f"{APPS / 'stopping.py'}"
PROBE = f"{APPS / 'probe.py'}:app"
SECRET = "not a secret but long enough to be one"


def end_of(gateway: Gateway, timeout: float = 20.0) -> tuple[int, str]:
    """Wait until a gateway that was not asked to has ended; exit code and log."""
    code = gateway.wait(timeout)
    gateway.wait_for_line("\0")  # no line has it: this returns at the end of the log
    return code, gateway.log


def processes_of(gateway: Gateway) -> set[int]:
    """What still runs, in whatever session."""
    return processes(gateway.directory.name)


# Asked to stop


async def test_sigterm_lets_handlers_finish_and_tells_clients_when_to_come_back() -> None:
    async with running_gateway(f"{STOPPING}:app") as gateway:
        async with Client(gateway.ws_url) as busy, Client(gateway.ws_url) as idle, Raw(gateway.port) as half:
            assert await busy.ask(do="work", seconds=0.5) == {"started": "work"}
            await idle.ask(do="who")
            await half.send(upgrade()[:50])
            gateway.send_signal(signal.SIGTERM)
            assert await busy.receive() == {"finished": "work"}
            for client in (busy, idle):
                code, reason = await close_of(client.connection)
                assert code == 1001
                assert re.fullmatch(r"gateway stopping; come back within \d+\.\d s", reason)
            assert parsed(await half.receive_all()).status == 503
            with pytest.raises(ConnectionRefusedError):
                await Client(gateway.ws_url).open()
            code, log = await asyncio.to_thread(end_of, gateway)
        assert code == ExitCode.OK
        assert "Traceback" not in log
        assert " ERROR " not in log
        said = [line for line in log.splitlines() if line.startswith("app: ")]
        assert sorted(said) == [
            "app: left 1001",
            "app: left 1001",
            "app: on_stop",
            "app: on_stop",
            "app: work finished",
        ]
        assert said.index("app: work finished") < len(said) - 2  # before its on_disconnect and on_stop
        # The session, too, was written before the store was ended.
        await asyncio.to_thread(gateway.start)
        async with busy:
            assert (await busy.ask(do="who"))["fields"] == {"work": "finished"}
        assert await asyncio.to_thread(gateway.stop) == ExitCode.OK


@pytest.mark.long
async def test_a_second_sigterm_ends_the_wait_for_a_store_that_does_not_end() -> None:
    async with running_gateway(f"{STOPPING}:app") as gateway:
        store = gateway.valkey_pid()
        assert store is not None
        os.kill(store, signal.SIGSTOP)
        gateway.send_signal(signal.SIGTERM)
        await wait_until(lambda: not gateway.worker_pids(), seconds=20)
        asked = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        await asyncio.to_thread(end_of, gateway)
        assert time.monotonic() - asked < 4, "less than the store's own five seconds"


async def test_a_worker_that_crashes_at_its_end_is_named_and_shows_in_the_exit_code() -> None:
    async with running_gateway(f"{STOPPING}:crashing_at_its_end", workers=1) as gateway:
        gateway.send_signal(signal.SIGTERM)
        code, log = await asyncio.to_thread(end_of, gateway)
        assert code == ExitCode.FORCED_STOP
        assert re.search(r"ERROR +primary .*slot=0.*3", log)


WAITING = r"ERROR +worker 0 .*: cut at the stop: .*asked > wait_for_what_never_comes > Event.wait"


@pytest.mark.parametrize(
    ("what", "by", "said"),
    [
        pytest.param("wait for ever", "SIGTERM", WAITING, marks=pytest.mark.long),
        ("wait for ever", "command", WAITING),
        (
            "block for ever",
            "SIGTERM",
            r"WARNING +worker 0 .*: the event loop is blocked for \d\.\d s by asked \(stopping\.py:\d+\)\n"
            r"(.*\n)*.*ERROR +primary .*: worker killed slot=0",
        ),
    ],
    ids=["waits", "waits, stopped by command", "blocks"],
)
async def test_a_handler_that_does_not_end_is_cut_at_stop_timeout_and_named(what: str, by: str, said: str) -> None:
    async with running_gateway(f"{STOPPING}:app", "--set", "stop_timeout=2", workers=1) as gateway:
        async with Client(gateway.ws_url) as client:
            await client.ask(do=what)
            started = time.monotonic()
            if by == "command":
                done = await asyncio.to_thread(gateway.command, "stop")
                assert (done.returncode, done.stdout) == (ExitCode.FORCED_STOP, "")
                assert "error: the gateway has stopped with FORCED_STOP: what had not ended" in done.stderr
                assert processes_of(gateway) == set(), "whoever waits for the command may start the next one"
                code = gateway.wait()
            else:
                code = await asyncio.to_thread(gateway.stop)
        assert code == ExitCode.FORCED_STOP
        assert 1.5 < time.monotonic() - started < 10
        _, log = end_of(gateway)
    assert re.search(said, log), log
    assert "Traceback" not in log


async def test_the_stop_command_stops_as_sigterm_does_and_returns_when_all_is_gone() -> None:
    async with running_gateway(f"{STOPPING}:app") as gateway:
        async with Client(gateway.ws_url) as busy:
            await busy.ask(do="work", seconds=0.5)
            stopping = asyncio.create_task(asyncio.to_thread(gateway.command, "stop"))
            assert await busy.receive() == {"finished": "work"}
            assert (await close_of(busy.connection))[0] == 1001
            done = await stopping
        assert processes_of(gateway) == set()
        assert (done.returncode, done.stdout) == (ExitCode.OK, "stopped\n")
        assert done.stderr == "stopping: 1 connections\n"
        code, log = await asyncio.to_thread(end_of, gateway)
        assert code == ExitCode.OK
        assert "app: work finished" in log
        again = await asyncio.to_thread(gateway.command, "stop")
        assert again.returncode == ExitCode.NO_GATEWAY


async def test_sigint_ends_soon_whatever_handlers_do() -> None:
    async with running_gateway(f"{STOPPING}:app", "--first-visit", "round_robin") as gateway:
        async with Client(gateway.ws_url) as waiting, Client(gateway.ws_url) as blocking:
            await waiting.ask(do="wait for ever")
            await blocking.ask(do="block for ever")
            started = time.monotonic()
            code = await asyncio.to_thread(gateway.stop, signal.SIGINT)
            took = time.monotonic() - started
            assert (await close_of(waiting.connection))[0] == 1001
        _, log = end_of(gateway)
    print(f"SIGINT took {took:.2f} s")
    assert code == ExitCode.OK  # no drain was promised
    assert took < 10
    assert "Traceback" not in log


@pytest.mark.parametrize("second", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
async def test_a_second_signal_ends_at_once(second: signal.Signals) -> None:
    async with running_gateway(f"{STOPPING}:app", workers=1) as gateway:
        async with Client(gateway.ws_url) as waiting:
            await waiting.ask(do="wait for ever")
            gateway.send_signal(signal.SIGTERM)  # has 30 s
            assert (await close_of(waiting.connection))[0] == 1001
            started = time.monotonic()
            code = await asyncio.to_thread(gateway.stop, second)
        assert code == ExitCode.FORCED_STOP
        assert time.monotonic() - started < 5
        assert "Traceback" not in end_of(gateway)[1]


@pytest.mark.long
async def test_a_gateway_that_is_still_starting_stops_too() -> None:
    gateway = Gateway(f"{STOPPING}:slow_to_start", workers=1)
    try:
        gateway.launch()
        assert await asyncio.to_thread(gateway.wait_for_line, "app: starting")
        started = time.monotonic()
        assert await asyncio.to_thread(gateway.stop) == ExitCode.OK
        assert time.monotonic() - started < 10
    finally:
        await asyncio.to_thread(gateway.close)


async def test_an_app_that_is_not_ready_in_start_timeout_is_named() -> None:
    code, log = await failed(f"{STOPPING}:slow_to_start", "--set", "start_timeout=1")
    assert code == ExitCode.TARGET
    assert "not ready in 1 s (start_timeout)" in log


# Workers that die


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(f"{STOPPING}:app", workers=2) as gateway:
        yield gateway
        whole_log(gateway)


async def test_a_worker_that_exits_is_named_and_replaced(gateway: Gateway) -> None:
    client = Client(gateway.ws_url)
    async with client:
        before = await client.ask(do="who")
        await client.send({"do": "die"})
        async with asyncio.timeout(20):
            await client.connection.wait_closed()
    slot = before["slot"]
    await wait_until(lambda: gateway.worker_pids().get(slot) not in (None, before["pid"]))
    async with client:
        after = await client.ask(do="who")
    assert after["slot"] == slot
    assert after["pid"] != before["pid"]
    await wait_until(lambda: f"worker died slot={slot}: exited with status 3" in gateway.log)


# Gateways that cannot start


async def failed(target: str, *options: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and log of a gateway that ends by itself, and leaves no process."""
    gateway = Gateway(target, *options, environment=environment)
    try:
        gateway.launch()
        code = await asyncio.to_thread(gateway.wait)
        log = await asyncio.to_thread(end_of, gateway)
        assert not gateway.worker_pids()
        assert gateway.valkey_pid() is None
    finally:
        await asyncio.to_thread(gateway.close)
    return code, log[1]


async def test_an_application_whose_on_start_raises_is_exit_code_4_with_its_traceback() -> None:
    code, log = await failed(f"{STOPPING}:unstartable")
    assert code == ExitCode.TARGET
    assert "RuntimeError: the application's own reason" in log
    assert 'stopping.py", line' in log, "its traceback"
    assert 'in start\n      raise RuntimeError("the application\'s own reason")' in log


async def test_an_application_that_cannot_be_imported_is_exit_code_4_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")
    code, log = await failed(f"{tmp_path / 'broken.py'}:app")
    assert code == ExitCode.TARGET
    assert "ModuleNotFoundError: No module named 'no_such_module_anywhere'" in log
    assert 'broken.py", line 1' in log


async def test_a_taken_port_is_exit_code_5(gateway: Gateway) -> None:
    code, log = await failed(PROBE, "--bind", f"127.0.0.1:{gateway.port}")
    assert code == ExitCode.BIND
    assert f"cannot listen on 127.0.0.1:{gateway.port}: Address already in use" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("kind", ["runtime", "state"])
async def test_a_directory_that_another_gateway_holds_is_exit_code_6(gateway: Gateway, kind: str) -> None:
    held = gateway.runtime_dir if kind == "runtime" else gateway.state_dir
    code, log = await failed(PROBE, f"--{kind}-dir", str(held))
    assert code == ExitCode.RUNTIME_DIR
    assert f"{kind}_dir {held} is held by another gateway (pid {gateway.pid})" in log
    assert "Traceback" not in log
    async with Client(gateway.ws_url) as client:  # which took no harm
        await client.ask(do="who")


async def test_an_unreachable_redis_is_exit_code_7_and_names_the_url_without_its_password() -> None:
    url = "redis://user:open-sesame@127.0.0.1:1/0"
    code, log = await failed(PROBE, "--redis", url, environment={"STICKYGW_SECRET": SECRET})
    assert code == ExitCode.STORE
    assert "127.0.0.1:1" in log
    assert "--redis" in log
    assert "open-sesame" not in log
    assert SECRET not in log
    assert "Traceback" not in log


async def test_a_redis_without_a_secret_is_exit_code_3_and_says_how_to_make_one() -> None:
    code, log = await failed(PROBE, "--redis", "redis://user:open-sesame@127.0.0.1:1/0")
    assert code == ExitCode.SETTINGS
    assert "STICKYGW_SECRET" in log
    assert "python3 -c" in log
    assert "open-sesame" not in log
    assert "Traceback" not in log
