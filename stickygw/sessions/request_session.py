"""`RequestSession`: the session of one request's client, as handlers use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from stickygw.sessions.session import Session
from stickygw.sessions.visit import Visit
from stickygw.types import SessionId


class RequestSession(MutableMapping[str, Any]):
    """A mapping of fields, shared by all requests and WebSockets of the client in this process; see `Session`.

    What changed is written before the answer begins, at the end of the request, also after an error, and in a
    WebSocket before each wait for a message; by hand with `save`.
    """

    __slots__ = ("_is_loaded", "_visit", "is_accessed")

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._is_loaded = False
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
            raise RuntimeError("the session is not loaded: `await session.load()` first (autoload is off here)")
        self.is_accessed = True
        return self._visit

    # The mapping

    def __getitem__(self, field: str) -> Any:
        return self.shared[field]

    def __setitem__(self, field: str, value: Any) -> None:
        self.shared[field] = value

    def __delitem__(self, field: str) -> None:
        del self.shared[field]

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
        """Whether something has to be saved. To ask that is no use of the session."""
        session = self._visit.session
        return self._is_loaded and session is not None and session.is_dirty

    @property
    def is_ended(self) -> bool:
        """See `Session.is_ended`."""
        return self.shared.is_ended

    # With the store

    async def load(self) -> None:
        """Make it readable. No round trip where it is in memory and current. Raises `SessionUnavailable`."""
        if not self._is_loaded:
            await self._visit.open()
            self._is_loaded = True

    async def refresh(self) -> None:
        """See `Session.refresh`."""
        await self.shared.refresh()

    async def save(self) -> None:
        """See `Session.save`."""
        await self.shared.save()

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

    async def destroy(self) -> None:
        """End the session on all workers: see `Session.destroy`. The answer tells the client to forget its cookie."""
        await self._loaded.destroy()

    # For whoever serves the request

    def give_up(self) -> bool:
        """See `Visit.give_up`."""
        return self._is_loaded and self._visit.give_up()

    async def keep(self) -> None:
        """See `Visit.keep`. Nothing, if it was never loaded."""
        if self._is_loaded:
            await self._visit.keep()

    async def freshen(self) -> None:
        """See `Visit.freshen`. Nothing, if it was never loaded."""
        if self._is_loaded:
            await self._visit.freshen()

    def release(self) -> None:
        """The request is over. Idempotent."""
        if self._is_loaded:
            self._is_loaded = False
            self._visit.release()
