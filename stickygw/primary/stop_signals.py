"""The signals that end the gateway: the first asks, the second insists."""

from __future__ import annotations

import asyncio
import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Watches for `STOP_SIGNALS` on the running loop, until the loop ends."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[signal.Signals] = loop.create_future()
        """The first signal."""
        self.insisted: asyncio.Future[None] = loop.create_future()
        """Done with the second signal: no more waiting."""
        for number in STOP_SIGNALS:
            # Started with nohup(1): who closes the terminal is to end nothing.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        if not self.asked.done():
            self.asked.set_result(number)
        elif not self.insisted.done():
            self.insisted.set_result(None)
