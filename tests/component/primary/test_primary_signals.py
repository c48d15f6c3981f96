"""What each signal means, with a terminal and without one; signals are the kernel's, terminals are real."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.terminal import Terminal
from support.waiting import wait_until

from stickygw.primary.signals import Signals

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2)
SCRIPT = """
import asyncio, uvloop
from stickygw.primary.signals import Signals, has_controlling_terminal

async def main():
    signals = Signals(
        lambda: print("reload", flush=True),
        lambda by: print("scale", by, flush=True),
        lambda: print("upgrade", flush=True),
    )
    print("terminal", has_controlling_terminal(), flush=True)
    print("asked", (await signals.asked).name, flush=True)
    await signals.insisted
    print("insisted", flush=True)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Told:
    """What the signals asked for."""

    def __init__(self, *, has_terminal: bool) -> None:
        self.reloads = 0
        self.upgrades = 0
        self.scales: list[int] = []
        self.signals = Signals(self._reload, self.scales.append, self._upgrade, has_terminal=has_terminal)

    def _reload(self) -> None:
        self.reloads += 1

    def _upgrade(self) -> None:
        self.upgrades += 1


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("has_terminal", [True, False])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_asks_and_the_second_insists(has_terminal: bool, first: signal.Signals) -> None:
    signals = Told(has_terminal=has_terminal).signals
    send(first)
    assert await asyncio.wait_for(signals.asked, 10) is first
    assert not signals.insisted.done()
    send(signal.SIGTERM)
    await asyncio.wait_for(signals.insisted, 10)


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])
async def test_without_a_terminal_a_hangup_reloads_even_if_it_was_ignored(inherited: signal.Handlers) -> None:
    signal.signal(signal.SIGHUP, inherited)
    told = Told(has_terminal=False)
    for count in (1, 2):
        send(signal.SIGHUP)
        await wait_until(lambda count=count: told.reloads == count)
    assert not told.signals.asked.done()


async def test_with_a_terminal_a_hangup_asks_to_stop() -> None:
    told = Told(has_terminal=True)
    send(signal.SIGHUP)
    assert await asyncio.wait_for(told.signals.asked, 10) is signal.SIGHUP
    assert told.reloads == 0


async def test_a_hangup_that_nohup_has_ignored_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    told = Told(has_terminal=True)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    send(signal.SIGHUP, signal.SIGTERM)
    assert await asyncio.wait_for(told.signals.asked, 10) is signal.SIGTERM


async def test_without_a_terminal_one_worker_more_and_one_fewer() -> None:
    told = Told(has_terminal=False)
    send(signal.SIGTTIN)
    await wait_until(lambda: told.scales == [1])
    send(signal.SIGTTOU)
    await wait_until(lambda: told.scales == [1, -1])


async def test_with_a_terminal_its_job_control_is_left_to_the_kernel() -> None:
    Told(has_terminal=True)
    assert {signal.getsignal(number) for number in (signal.SIGTTIN, signal.SIGTTOU)} == {signal.SIG_DFL}


async def test_once_asked_to_stop_it_neither_reloads_nor_scales() -> None:
    told = Told(has_terminal=False)
    send(signal.SIGTERM)
    await told.signals.asked
    send(signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGINT)
    await asyncio.wait_for(told.signals.insisted, 10)
    assert (told.reloads, told.scales) == (0, [])


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def test_a_process_in_a_session_without_a_terminal_has_none(script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "terminal False\n"
            for number, line in (
                (signal.SIGHUP, "reload"),
                (signal.SIGTTIN, "scale 1"),
                (signal.SIGTTOU, "scale -1"),
                (signal.SIGTERM, "asked SIGTERM"),
                (signal.SIGINT, "insisted"),
            ):
                process.send_signal(number)
                assert process.stdout.readline() == f"{line}\n"
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(("keys", "name"), [(b"\x03", "SIGINT"), (None, "SIGHUP")], ids=["Ctrl-C", "closed"])
def test_on_a_terminal_ctrl_c_and_its_end_ask_to_stop(
    script: Path, tmp_path: Path, keys: bytes | None, name: str
) -> None:
    said = tmp_path / "said"
    command = f"{sys.executable} {script} >{said}"
    mark = f"signals-{secrets.token_hex(8)}"
    with Terminal(command, cwd=tmp_path, environment=dict(os.environ), mark=mark) as terminal:
        asyncio.run(wait_until(lambda: said.exists() and said.read_text() == "terminal True\n"))
        if keys is None:
            terminal.hang_up()
        else:
            terminal.type(keys)
        asyncio.run(wait_until(lambda: f"asked {name}\n" in said.read_text()))


@pytest.mark.parametrize("has_terminal", [True, False])
async def test_sigusr2_upgrades_until_the_stop_is_asked_for(has_terminal: bool) -> None:
    told = Told(has_terminal=has_terminal)
    send(signal.SIGUSR2)
    await wait_until(lambda: told.upgrades == 1)
    send(signal.SIGTERM)
    await asyncio.wait_for(told.signals.asked, 10)
    send(signal.SIGUSR2, signal.SIGTERM)
    await asyncio.wait_for(told.signals.insisted, 10)
    assert told.upgrades == 1
