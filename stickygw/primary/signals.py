"""What the signals to the primary mean: stop, reload, one worker more or fewer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable


def has_controlling_terminal() -> bool:
    """Whether a terminal sends this process its signals, as in a shell; not so under systemd or in a container."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(terminal)
    return True


class Signals:
    """Watches for signals on the running loop, until the loop ends.

    =================  ============================================  ==================================================
    signal             without a controlling terminal                with one
    =================  ============================================  ==================================================
    SIGTERM, SIGINT    the first asks to stop, the second insists    the same
    SIGHUP             `on_reload()`, even if inherited ignored      the terminal was closed: as SIGTERM, but ignored
                                                                     under nohup(1)
    SIGTTIN, SIGTTOU   `on_scale(1)`, `on_scale(-1)`                 the kernel's: they stop a background job
    SIGUSR2            `on_upgrade()`                                the same
    =================  ============================================  ==================================================

    With a terminal the kernel itself sends SIGTTIN and SIGTTOU to a background job that touches it, and restarts the
    system call behind the handler: it would be sent again, without end (termios(3), signal(7)).

    Once asked to stop, the gateway neither reloads nor scales, nor is it upgraded.
    """

    def __init__(
        self,
        on_reload: Callable[[], None],
        on_scale: Callable[[int], None],
        on_upgrade: Callable[[], None],
        *,
        has_terminal: bool | None = None,
    ) -> None:
        """`has_terminal`: None asks `has_controlling_terminal`."""
        self._loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[signal.Signals] = self._loop.create_future()
        """The first signal that asks to stop."""
        self.insisted: asyncio.Future[None] = self._loop.create_future()
        """Done with the second one: no more waiting."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ask, number)
        self._on(signal.SIGUSR2, on_upgrade)
        if has_terminal is None:
            has_terminal = has_controlling_terminal()
        if not has_terminal:
            self._on(signal.SIGHUP, on_reload)
            self._on(signal.SIGTTIN, lambda: on_scale(1))
            self._on(signal.SIGTTOU, lambda: on_scale(-1))
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._loop.add_signal_handler(signal.SIGHUP, self._ask, signal.SIGHUP)

    def _on(self, number: signal.Signals, act: Callable[[], None]) -> None:
        self._loop.add_signal_handler(number, lambda: None if self.asked.done() else act())

    def _ask(self, number: signal.Signals) -> None:
        if not self.asked.done():
            self.asked.set_result(number)
        elif not self.insisted.done():
            self.insisted.set_result(None)
