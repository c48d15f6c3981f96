"""An event loop whose time is told, not waited for: where nothing is ready, the next timer is due at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc]
    """Waits for nothing: what it was to wait, `pass_by` lets pass."""

    def __init__(self) -> None:
        super().__init__()
        self.pass_by: Callable[[float], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("nothing is ready and no timer runs: this would wait for ever")
        if timeout > 0:
            self.pass_by(timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time` begins at 0, and rises by what timers wait, and by `block`."""

    def __init__(self) -> None:
        selector = _Jumping()
        self._now = 0.0
        super().__init__(selector)
        selector.pass_by = self.block

    def time(self) -> float:
        return self._now

    def block(self, seconds: float) -> None:
        """So long nothing else runs."""
        self._now += seconds


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, Result]]) -> Result:
    """`main(loop)` on a loop of its own, to its end."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
