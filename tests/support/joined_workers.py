"""Two workers in one process, the second of which takes over from the first: `Joined`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from stickygw import App, Connection
from stickygw.apps.native.coming import Coming
from stickygw.apps.native.leaving import Outcome
from stickygw.apps.native.moving_out import MovingOut
from stickygw.testing import AppClient
from stickygw.types import Slot

KEYS = ["path:/match/{id}"]

OWN_SLOT, OTHER_SLOT = Slot(0), Slot(1)


class Matches:
    """An application that keeps something for each key, and notes in `told` what its hooks and handlers do.

    A hook waits for its `may_…`, and raises its `…_error`, if there is one.
    """

    def __init__(self, told: list[str], name: str) -> None:
        self.app = App()
        self.kept: dict[str, Any] = {}
        self.may_out = _set_event()
        self.may_in = _set_event()
        self.may_handle = _set_event()
        self.may_leave = _set_event()
        self.out_error: Exception | None = None
        self.in_error: Exception | None = None
        self._told = told
        self._name = name
        self.app.on_connect("/match/{id}")(self._enter)
        self.app.on_message("/match/{id}")(self._said)
        self.app.on_disconnect(self._left)

    def with_hooks(self) -> Matches:
        """Have ``on_key_out`` and ``on_key_in``."""
        self.app.on_key_out(self._out)
        self.app.on_key_in(self._in)
        return self

    def _tell(self, text: str) -> None:
        self._told.append(f"{self._name}: {text}")

    def _enter(self, conn: Connection, id: str) -> None:
        assert conn.key == id
        self._tell(f"enter {id}")
        self.kept.setdefault(id, 0)

    async def _said(self, conn: Connection, message: str, id: str) -> None:
        await self.may_handle.wait()
        self.kept[id] += 1
        await conn.send(f"{self._name} {self.kept[id]}")

    async def _left(self, conn: Connection, code: int, reason: str) -> None:
        self._tell(f"leaving {conn.key}")
        await self.may_leave.wait()
        self._tell(f"left {conn.key} {code}")

    async def _out(self, key: str) -> Any:
        self._tell(f"out {key}")
        await self.may_out.wait()
        if self.out_error is not None:
            raise self.out_error
        return self.kept.pop(key)

    async def _in(self, key: str, state: Any) -> None:
        await self.may_in.wait()
        if self.in_error is not None:
            raise self.in_error
        assert key not in self.kept
        self.kept[key] = state
        self._tell(f"in {key}")


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


class Joined:
    """The workers `old` and `new`, and a move from one to the other once it has begun."""

    def __init__(self, old: AppClient, new: AppClient, grace_seconds: float, slot: Slot) -> None:
        self.old = old
        self.new = new
        self._grace_seconds = grace_seconds
        self._slot = slot
        self._task: asyncio.Task[Outcome] | None = None
        self.on_moved: Callable[[], None] = lambda: None

    def begin(self, *, within_seconds: float = 20.0, is_listed: bool = True) -> None:
        """Begin the move; not `is_listed`: only announce it."""
        self._theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs.setblocking(False)
        self._ours.setblocking(False)
        self.coming = Coming(
            self.new.runtime,
            self._ours,
            admit=lambda offer: lambda: None,
            on_over=lambda coming: None,
            is_same_slot=self._slot == self.old.runtime.identity.slot,
        )
        if is_listed:
            self.go_on(within_seconds=within_seconds)

    def go_on(self, *, within_seconds: float = 20.0) -> None:
        """Begin the old worker's part."""
        moving = MovingOut(
            self.old.runtime,
            {self._slot: self._theirs},
            grace_seconds=self._grace_seconds,
            within_seconds=within_seconds,
            on_moved=lambda id: self.on_moved(),
        )
        self.leaving = moving._leavings[self._slot]
        self._task = asyncio.create_task(moving.run())

    def new_dies(self) -> None:
        """As far as the old worker can see."""
        self.coming._link.close()
        self.coming._closed()

    @property
    def is_over(self) -> bool:
        """Whether the old worker has done its part."""
        return self._task is not None and self._task.done()

    async def outcome(self) -> Outcome:
        """When the move is over."""
        assert self._task is not None
        async with asyncio.timeout(20):
            return await self._task

    async def end(self) -> None:
        """Let no move be under way."""
        if self._task is None and hasattr(self, "_theirs"):
            self._theirs.close()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


@asynccontextmanager
async def joined(
    old: App, new: App, *, grace_seconds: float = 5.0, slot: Slot = OWN_SLOT, **settings: Any
) -> AsyncIterator[Joined]:
    """Both run, with one store; the new one has the old one's slot, or another `slot`."""
    settings = {"keys": KEYS, "move_grace": grace_seconds, **settings}
    first, second = AppClient(old, **settings), AppClient(new, **settings)
    second.store = first.store
    async with first, second:
        pair = Joined(first, second, grace_seconds, slot)
        try:
            yield pair
        finally:
            await pair.end()


def told_of(told: list[str], *words: str) -> Callable[[], bool]:
    """Whether one of what was told begins with each of `words`."""
    return lambda: all(any(text.startswith(word) for text in told) for word in words)
