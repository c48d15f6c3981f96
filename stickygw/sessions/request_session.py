"""`RequestSession`: the session of one request's client, as handlers use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from stickygw.errors import SessionUnavailable
from stickygw.sessions.own_writes import OwnWrites
from stickygw.sessions.session import Session
from stickygw.sessions.visit import Visit
from stickygw.types import SessionId


class RequestSession(MutableMapping[str, Any]):
    """A mapping of fields, shared by all requests and WebSockets of the client in this process; see `Session`.

    What changed is written before the answer begins, at the end of the request, also after an error, and in a
    WebSocket before each wait for a message; by hand with `save`.
    """

    __slots__ = ("_is_loaded", "_is_over", "_visit", "_writes", "is_accessed")

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._is_loaded = False
        self._is_over = False
        self._writes = OwnWrites()
        self.is_accessed = False
        """Whether anybody has asked it anything: then the answer depends on who asks."""

    def __repr__(self) -> str:
        return repr(self.shared) if self._is_loaded else "<RequestSession not loaded>"

    @property
    def shared(self) -> Session:
        """What all requests of the client share. Raises `RuntimeError` before `load`."""
        session = self._loaded.session
        assert session is not None
        return session

    @property
    def _loaded(self) -> Visit:
        if not self._is_loaded:
            self._check_not_over()
            raise RuntimeError("the session is not loaded: `await session.load()` first (autoload is off here)")
        self.is_accessed = True
        return self._visit

    # The mapping

    def __getitem__(self, field: str) -> Any:
        value = self.shared[field]
        self._writes.read(self.shared, field, value)
        return value

    def __setitem__(self, field: str, value: Any) -> None:
        self.shared[field] = value
        self._writes.wrote(self.shared, field)

    def __delitem__(self, field: str) -> None:
        del self.shared[field]
        self._writes.wrote(self.shared, field)

    def __contains__(self, field: object) -> bool:
        return field in self.shared

    def __iter__(self) -> Iterator[str]:
        return iter(self.shared)

    def __len__(self) -> int:
        return len(self.shared)

    # What it is

    @property
    def is_loaded(self) -> bool:
        """Whether it can be read and written to."""
        return self._is_loaded

    @property
    def id(self) -> SessionId:
        """Names it to the gateway, and to other programs at the store; never to its client."""
        return self.shared.id

    @property
    def is_known(self) -> bool:
        """Whether the client has proved that it is its own; not so when it was made for this request."""
        return self._visit.is_known

    @property
    def is_new(self) -> bool:
        """Whether nothing is stored of it."""
        return self.shared.is_new

    @property
    def is_dirty(self) -> bool:
        """Whether something has to be saved that was written through here. To ask that is no use of the session."""
        session = self._visit.session
        return self._is_loaded and session is not None and bool(self._writes.unsaved(session))

    @property
    def is_ended(self) -> bool:
        """See `Session.is_ended`."""
        return self.shared.is_ended

    # With the store

    async def load(self) -> None:
        """Make it readable. No round trip where it is in memory and current. Raises `SessionUnavailable`, and
        `RuntimeError` when the request is over."""
        self._check_not_over()
        if self.is_loaded:
            return
        await self._visit.open()
        if self._is_over or self._is_loaded:  # meanwhile, by another task
            self._visit.release()
            self._check_not_over()
        self._is_loaded = True

    def _check_not_over(self) -> None:
        if self._is_over:
            raise RuntimeError("the request is over, and so is the use of its session")

    async def refresh(self) -> None:
        """See `Session.refresh`."""
        await self.shared.refresh()

    async def save(self) -> None:
        """See `Session.save`. Raises `SessionUnavailable`, once, also where another request could not save the same
        field, and has rolled it back."""
        await self.shared.save()
        self._saved()

    async def increment(self, field: str, by: int = 1) -> int:
        """See `Session.increment`."""
        return await self.shared.increment(field, by)

    async def update_atomically(
        self, field: str, function: Callable[[Any], Any], *, default: Any = None, attempts: int = 64
    ) -> Any:
        """See `Session.update_atomically`."""
        return await self.shared.update_atomically(field, function, default=default, attempts=attempts)

    def lock(self, seconds: float = 10.0, *, wait: float = 5.0) -> AbstractAsyncContextManager[None]:
        """See `Session.lock`."""
        return self.shared.lock(seconds, wait=wait)

    async def regenerate(self) -> None:
        """A new id for the same fields, told by the answer's cookie; the old id is worthless at once.

        At each login, and wherever rights grow: an id that somebody has planted in the client before must not be that
        of a user. Raises `RuntimeError` when the head of the answer has left; `SessionUnavailable`, `SessionEnded`.
        """
        await self._loaded.regenerate()
        self._writes.forget()  # all of it is stored

    async def destroy(self) -> None:
        """End the session on all workers: see `Session.destroy`. The answer tells the client to forget its cookie."""
        await self._loaded.destroy()

    # For whoever serves the request

    def roll_back(self) -> None:
        """Give up what was written through here and is not saved: the client is told that it is not done."""
        if self._is_loaded and self._writes.roll_back(self.shared) and not self.shared.is_ended:
            self.shared.mark_stale()  # the store may have it all the same: an answer may have been lost

    def _saved(self) -> None:
        if lost := self._writes.saved(self.shared):
            raise SessionUnavailable(f"another request could not save the same session fields: {sorted(lost)}")

    def give_up(self) -> bool:
        """See `Visit.give_up`."""
        return self._is_loaded and self._visit.give_up()

    async def keep(self) -> None:
        """See `Visit.keep`. Nothing, if it was never loaded."""
        if self._is_loaded:
            await self._visit.keep()
            self._saved()

    async def freshen(self) -> None:
        """See `Visit.freshen`. Nothing, if it was never loaded."""
        if self._is_loaded:
            await self._visit.freshen()

    def release(self) -> None:
        """The request is over. Idempotent."""
        self._is_over = True
        if self._is_loaded:
            self._is_loaded = False
            self._visit.release()
