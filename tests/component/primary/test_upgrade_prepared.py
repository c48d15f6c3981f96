"""An upgrade is prepared, or refused with words; meanwhile nothing else is begun, and nothing is left of a refusal."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from found_rig import left_settings
from primary_rig import head_of
from supervised_rig import SERVE, Supervised, supervised
from support.waiting import wait_until

from stickygw.config.settings import Settings
from stickygw.errors import CommandError
from stickygw.primary import upgrade
from stickygw.primary.upgrade import UNDER_WAY, Upgrade
from stickygw.primary.whereabouts import places_of
from stickygw.supervision import events as to

RUN_ARGUMENTS = ("run", "app.py:app")
ONCE = """
    note("started")
    if len(open(mark).readlines()) > 1:
        time.sleep(60)
"""
"""The second worker is never ready."""


class Upgrading:
    """A gateway's fleet of one that can be upgraded, and what the new code does when it is asked if it would start."""

    def __init__(self, at: Supervised, settings: Settings, arguments: Sequence[str]) -> None:
        self.at = at
        self.said: list[str] = []
        self.settings = settings
        self.upgrade = Upgrade(
            arguments,
            settings,
            supervisor=at.supervisor,
            acceptor=at.rig.acceptor,
            intake=at.rig.intake,
            hand_overs=at.rig.hand_overs,
        )

    async def prepare(self) -> None:
        await self.upgrade.prepare(self.said.append)

    async def refusal_of(self, command: to.Command) -> str:
        """Why the supervisor does not do it; "": it does."""
        finished = self.at.supervisor.ask(command)
        return finished.result().text if finished.done() else ""

    async def assert_goes_on(self) -> None:
        """It accepts, and carries out commands."""
        assert self.at.rig.acceptor._is_accepting
        assert await self.refusal_of(to.Reload()) == ""


@asynccontextmanager
async def upgrading(
    directory: Path, *script: str, settings: Settings | None = None, arguments: Sequence[str] = RUN_ARGUMENTS
) -> AsyncIterator[Upgrading]:
    async with supervised(directory, *(script or (SERVE,)), slots=1) as at:
        await at.wait_ready()
        yield Upgrading(at, settings or left_settings(directory), arguments)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the new code look for the workers as `settings` say; `meanwhile()` happens before it has said so."""

    def answer(settings: Settings, meanwhile: Callable[[], Awaitable[Any]] | None = None) -> None:
        async def check(command: Sequence[str]) -> bytes:
            if meanwhile is not None:
                await meanwhile()
            return json.dumps(places_of(settings)).encode()

        monkeypatch.setattr(upgrade, "_check", check)

    return answer


# --- prepared ---------------------------------------------------------------------------------------------------------


async def test_while_it_is_prepared_commands_are_refused_until_it_is_cancelled(
    short_dir: Path, checked: Callable[..., None]
):
    async with upgrading(short_dir) as at:
        refused: list[str] = []

        async def meanwhile() -> None:
            refused.append(await at.refusal_of(to.Scale(2)))
            with pytest.raises(CommandError, match=UNDER_WAY):
                await at.prepare()
            refused.append(await at.refusal_of(to.Reload()))

        checked(at.settings, meanwhile)
        await at.prepare()
        refused.append(await at.refusal_of(to.Reload()))
        assert refused == [UNDER_WAY] * 3
        assert at.at.supervisor.fleet.is_held
        assert not at.at.rig.acceptor._is_accepting
        assert len(at.at.supervisor.fleet.slots) == 1

        at.upgrade.cancel()
        await at.assert_goes_on()
        assert not at.at.supervisor.fleet.is_held


async def test_it_can_be_prepared_again_after_it_was_cancelled(short_dir: Path, checked: Callable[..., None]):
    async with upgrading(short_dir) as at:
        checked(at.settings)
        for _ in range(2):
            await at.prepare()
            at.upgrade.cancel()
        await at.assert_goes_on()


async def test_who_has_no_worker_by_then_is_cut_and_the_log_says_so(
    short_dir: Path, checked: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(upgrade, "CLEAR_SECONDS", 0.02)
    async with upgrading(short_dir) as at:
        checked(at.settings)
        await at.at.rig.client(head_of())  # nobody takes it
        await wait_until(lambda: at.at.rig.hand_overs.underway == 1)
        with caplog.at_level(logging.WARNING):
            await at.prepare()
    assert "upgrade: 1 clients that no worker has taken yet are cut" in caplog.text


# --- refused ----------------------------------------------------------------------------------------------------------


async def test_settings_that_lead_elsewhere_are_refused_by_the_code_that_would_start(short_dir: Path):
    (short_dir / "app.py").write_text("from stickygw import App\napp = App()\n")
    config = short_dir / "gateway.toml"
    settings = left_settings(short_dir, bind=("127.0.0.1:1111",))
    arguments = ("run", f"{short_dir}/app.py:app", "--config", str(config))
    async with upgrading(short_dir, settings=settings, arguments=arguments) as at:
        config.write_text(f'bind = ["127.0.0.1:2222"]\nruntime_dir = "{short_dir}"\n')
        with pytest.raises(CommandError, match=r"bind is 127\.0\.0\.1:2222 now, and was 127\.0\.0\.1:1111"):
            await at.prepare()
        await at.assert_goes_on()


@pytest.mark.parametrize("is_apart", [False, True])
async def test_the_same_places_are_no_hindrance_for_the_code_that_would_start(short_dir: Path, is_apart: bool):
    (short_dir / "app.py").write_text("from stickygw import App\napp = App()\n")
    config = short_dir / "gateway.toml"
    config.write_text(f'bind = ["127.0.0.1:1111"]\nruntime_dir = "{short_dir}"\nmove_grace = 1.5\n')
    settings = left_settings(short_dir, bind=("127.0.0.1:1111",))
    target = f"{short_dir}/app.py:app"
    arguments = ["run", "--config", str(config), "--", target] if is_apart else ["run", target, "--config", str(config)]
    async with upgrading(short_dir, settings=settings, arguments=arguments) as at:
        await at.prepare()
        at.upgrade.cancel()


async def test_a_port_of_the_system_s_choice_wants_a_runtime_directory(short_dir: Path, checked: Callable[..., None]):
    async with upgrading(short_dir, settings=left_settings(short_dir, runtime_dir=None)) as at:
        checked(at.settings)
        with pytest.raises(CommandError, match="start the gateway with --runtime-dir, or on a port of your own"):
            await at.prepare()
        assert at.said == []
        await at.assert_goes_on()


async def test_a_gateway_that_nobody_knows_how_to_start_is_not_upgraded(short_dir: Path):
    async with upgrading(short_dir, arguments=()) as at:
        with pytest.raises(CommandError, match="nobody knows how to start it again"):
            await at.prepare()
        await at.assert_goes_on()


@pytest.mark.parametrize("is_late", [False, True])
async def test_when_the_only_worker_dies_meanwhile_it_is_refused_after_all(
    short_dir: Path, checked: Callable[..., None], monkeypatch: pytest.MonkeyPatch, is_late: bool
):
    async with upgrading(short_dir, ONCE, SERVE) as at:

        async def worker_dies() -> None:
            os.kill(at.at.pid(0), signal.SIGKILL)
            await wait_until(lambda: at.at.owner(0) is None)

        checked(at.settings, None if is_late else worker_dies)
        if is_late:
            await at.at.rig.client(b"GET / HT")
            await wait_until(lambda: at.at.rig.intake.pending)
        paused: list[bool] = []
        pause = at.at.rig.acceptor.pause
        monkeypatch.setattr(at.at.rig.acceptor, "pause", lambda: (paused.append(True), pause()))
        preparing = asyncio.create_task(at.prepare())
        if is_late:
            await wait_until(lambda: not at.at.rig.acceptor._is_accepting)
            await worker_dies()
        with pytest.raises(CommandError, match="no worker is ready"):
            await preparing
        assert bool(paused) is is_late
        await at.assert_goes_on()
