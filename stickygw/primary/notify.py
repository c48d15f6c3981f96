"""Tells systemd how the gateway is: ready, reloading, stopping, alive (sd_notify(3)). Without systemd, nobody."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger("stickygw.notify")

SEND_SECONDS = 0.2
"""So long at most a message waits for a service manager that is slow to read."""

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Notifier:
    """One gateway's word to the service manager that started it. A message that cannot be sent is logged once.

    It takes its variables out of `environ`: what children inherit would let them speak for us. Made before the first
    child is started.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self.environment = {name: environ.pop(name) for name in _VARIABLES if name in environ}
        """What it has taken: for this very process, when it is executed anew."""
        self._address = _address(self.environment.get("NOTIFY_SOCKET", ""))
        pid, microseconds = self.environment.get("WATCHDOG_PID", ""), self.environment.get("WATCHDOG_USEC", "")
        is_meant = self._address is not None and pid in ("", str(os.getpid())) and microseconds.isdecimal()
        self._alive_every = int(microseconds) / 1e6 / 2 if is_meant else 0.0
        """Seconds, half of what systemd waits for (sd_watchdog_enabled(3)); 0: it does not wait."""
        self._timer: asyncio.TimerHandle | None = None
        self._has_failed = False

    def ready(self) -> None:
        """The gateway serves: the start, or a reload, is done. From now on the watchdog hears that the loop turns."""
        self._send("READY=1")
        if self._timer is None and self._alive_every > 0:
            self._say_alive()

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # systemd wants to know that this is behind its own SIGHUP (Type=notify-reload).
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The gateway ends. The watchdog is still fed."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={' '.join(text.split())}")

    def close(self) -> None:
        """Feed the watchdog no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say_alive(self) -> None:
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._alive_every, self._say_alive)

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_SECONDS)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                log.warning("systemd cannot be told %s: %s", assignments[0], error)
            self._has_failed = True


def _address(name: str) -> bytes | None:
    """A path, or ``@`` and the name of an abstract socket; whatever else systemd may know (vsock) is not for us."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None
