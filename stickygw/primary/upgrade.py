"""Upgrades the primary in place: the same process runs the newest code, and adopts the workers of the one it was.

`Upgrade.prepare` sees to it that this can be done, and that nobody is on the way through the primary; `become_anew`
does it. Clients that connect meanwhile wait in the kernel's queue, and workers serve on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from stickygw.config.settings import Settings
from stickygw.errors import CommandError
from stickygw.primary.acceptor import Acceptor
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.intake import Intake
from stickygw.primary.supervisor import Supervisor
from stickygw.primary.whereabouts import known_name, refuse_if_moved

log = logging.getLogger("stickygw.supervisor")

CHECK_SECONDS = 30.0
"""How long the new code may take to say that it would start."""

CLEAR_SECONDS = 2.0
"""Who is on the way through the primary has so long to reach a worker. A client that is still sending its request head
then has to come again."""

LOOK_SECONDS = 0.01

UNDER_WAY = "an upgrade is under way"

MAX_SAID = 2000
"""Characters of what the new code says when it would not start."""

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2})
"""They wait, from the one code's last moment to the other's first, else they would end the process."""


class Upgrade:
    """Whether and when. `arguments` are those of the ``stickygw`` command that became this process, `configured` the
    settings that it read."""

    def __init__(
        self,
        arguments: Sequence[str],
        configured: Settings,
        *,
        supervisor: Supervisor,
        acceptor: Acceptor,
        intake: Intake,
        hand_overs: HandOvers,
    ) -> None:
        self._arguments = arguments
        self._configured = configured
        self._supervisor = supervisor
        self._acceptor = acceptor
        self._intake = intake
        self._hand_overs = hand_overs
        self._clock = asyncio.get_running_loop().time
        self._is_under_way = False

    async def prepare(self, on_progress: Callable[[str], None]) -> None:
        """Return when the process can be executed anew; it accepts nobody then. Raises `CommandError`: it cannot, and
        goes on as before."""
        if self._is_under_way:
            raise CommandError(UNDER_WAY)
        self._refuse_if_impossible()
        self._is_under_way = True
        self._supervisor.hold(UNDER_WAY)
        try:
            on_progress("checking the new code and the settings")
            found = await _check(_command(_asking(self._arguments)))
            refuse_if_moved(self._configured, found)
            self._refuse_if_impossible()
            self._acceptor.pause()
            await self._wait_clear()
            self._refuse_if_impossible()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Nothing came of it: accept again, and carry out commands."""
        self._is_under_way = False
        self._supervisor.release()
        self._acceptor.start()

    def become_anew(self, environment: Mapping[str, str]) -> NoReturn:
        """Execute the newest code. Raises OSError: the operating system would not."""
        command = _command(self._arguments)
        os.execve(command[0], command, environment)

    def _refuse_if_impossible(self) -> None:
        if not self._arguments:
            raise CommandError("this gateway was not started by `stickygw run`: nobody knows how to start it again")
        if known_name(self._configured) is None:
            raise CommandError(
                "the port is the system's choice, and the directories are named after it, so the new code would not "
                "find the workers: start the gateway with --runtime-dir, or on a port of your own"
            )
        if doing := self._supervisor.fleet.doing:
            raise CommandError(f"wait for the end of: {doing}")
        if not self._supervisor.owners():
            raise CommandError("no worker is ready: there is none to keep the addresses open")

    async def _wait_clear(self) -> None:
        until = self._clock() + CLEAR_SECONDS
        while self._intake.pending or self._hand_overs.underway:
            if self._clock() >= until:
                break
            # What is counted is the hot path's, which tells nobody of its changes.
            await asyncio.sleep(LOOK_SECONDS)
        if self._intake.pending:
            log.warning("upgrade: %d clients that have not sent their request are cut", self._intake.pending)
        if self._hand_overs.underway:
            log.warning("upgrade: %d clients that no worker has taken yet are cut", self._hand_overs.underway)


def hold_signals() -> None:
    """From here to `receive_signals` they wait, be it the new code's."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def receive_signals() -> None:
    """For who listens to them: what has come meanwhile comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _asking(arguments: Sequence[str]) -> list[str]:
    """The same for a ``run`` that only says whether and where it would start."""
    at = arguments.index("run") + 1  # right behind it: what stands behind a -- is no flag
    return [*arguments[:at], "--dry-run", "--show-places", *arguments[at:]]


def _command(arguments: Sequence[str]) -> list[str]:
    # -P: the installed command has no current directory on its path either.
    return [sys.executable, "-P", "-m", "stickygw.cli", *arguments]


async def _check(command: Sequence[str]) -> bytes:
    """What it prints. Raises `CommandError` with what it says if it does not end well."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CommandError(f"the new code cannot be started: {error}") from error
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            printed, said = await process.communicate()
    except TimeoutError:
        raise CommandError(f"the new code did not say within {CHECK_SECONDS:g} s whether it would start") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()  # SIGKILL ends this wait
    if process.returncode != 0:
        reason = said.decode("utf-8", "replace").strip()[-MAX_SAID:]
        raise CommandError(f"the new code would not start, so this one goes on: {reason}")
    return printed
