"""The terminal's keyboard, key by key, and its old mode again at the end, whatever ends the process."""

from __future__ import annotations

import os
import re
import signal
import termios
import tty
from types import FrameType, TracebackType
from typing import NoReturn, Self

_MAX_KEYS = 64
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)")
"""What arrows and function keys send (ECMA-48 §5.4): several characters that are no keys of ours."""
_C_CHARACTERS = 6
"""Where `termios.tcgetattr` has the control characters."""


class Keyboard:
    """The terminal `fd` while the context lasts: keys come at once and are not echoed.

    Ctrl-C still interrupts. Ctrl-Z does nothing, since a stopped program would leave its screen behind. SIGTERM and
    SIGHUP end the process through every context manager, rather than at once.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """For `select`."""
        return self._fd

    def pressed(self) -> str:
        """The characters of pressed keys; it waits for the first. Raises `EOFError` when the terminal is gone."""
        try:
            data = os.read(self._fd, _MAX_KEYS)
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return _SEQUENCE.sub("", data.decode("utf-8", "replace"))

    def __enter__(self) -> Self:
        self._mode = termios.tcgetattr(self._fd)
        self._handlers = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
        mode = termios.tcgetattr(self._fd)
        mode[_C_CHARACTERS][termios.VSUSP] = b"\0"
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        tty.setcbreak(self._fd, termios.TCSANOW)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, self._mode)
        except termios.error:
            pass  # the terminal is gone, and its mode with it
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
