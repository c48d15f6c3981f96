"""The facts about sessions: from the store, which has them, and from the gateway, which knows where they are in use."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypedDict, cast

from stickygw.config.redacted import redacted
from stickygw.errors import SessionEnded, SessionUnavailable, StoreError
from stickygw.ipc.control_client import ANSWER_SECONDS, ControlClient
from stickygw.sessions.base import Described, check_session_id
from stickygw.sessions.redis import RedisSessionStore
from stickygw.types import SessionId
from stickygw.wire.status import SessionsInUse, SessionStorePlace

STORE_SECONDS = 5.0
"""One call to the store may take longer than in a worker: nobody's handler waits for it."""

BATCH = 500
"""So many sessions are looked at together, and are in memory at once."""

IN_USE_SECONDS = 2.0
"""How long the workers may take to say what they have in use."""

SILENT_SECONDS = 0.1
"""The same, once one of them did not answer: a list has many batches."""


class SessionFacts(TypedDict):
    """A stored session, as ``--json`` prints it. `age`, `ttl`: in seconds, null if unknown or endless. `connections`:
    open WebSockets, by slot."""

    id: str
    age: int | None
    ttl: int | None
    fields: int
    bytes: int
    connections: dict[int, int]


class SessionDesk:
    """What the commands ask and do. `silent`: why which slot did not say what it has in use."""

    def __init__(self, gateway: ControlClient, store: RedisSessionStore, lifetime: int) -> None:
        self._gateway = gateway
        self._store = store
        self._lifetime = lifetime
        self.silent: dict[int, str] = {}

    async def count(self) -> int:
        """How many sessions are stored. About: the store may name one twice while it grows or shrinks."""
        number = 0
        async for _ in self._ids():
            number += 1
        return number

    def in_use(self) -> dict[int, int]:
        """How many sessions each slot has in use; one that two slots use counts on both."""
        return cast("dict[int, int]", self._ask(None))

    async def listed(self, limit: int | None) -> AsyncIterator[list[SessionFacts]]:
        """At most `limit` sessions, None: all, in no order, batch by batch.

        The store may name a session twice while it grows or shrinks; in one batch it is here once.
        """
        batch: dict[SessionId, None] = {}
        left = limit
        async for id in self._ids():
            batch[id] = None
            if len(batch) == (BATCH if left is None else min(BATCH, left)):
                facts = await self.described(list(batch))
                batch.clear()
                yield facts
                if left is not None:
                    left -= len(facts)
                    if left == 0:
                        return
        if batch:
            yield await self.described(list(batch))

    async def described(self, ids: Sequence[SessionId]) -> list[SessionFacts]:
        """Those of `ids`, at most `BATCH`, that are stored."""
        with _store_errors():
            found = await self._store.describe(ids)
        stored = [(id, about) for id, about in zip(ids, found, strict=True) if about is not None]
        in_use = self._ask([id for id, _ in stored]) if stored else {}
        now = time.time()
        return [_facts(id, about, in_use, now) for id, about in stored]

    async def fields(self, id: SessionId) -> dict[str, bytes] | None:
        """The packed values; None: nothing is stored."""
        with _store_errors():
            try:
                loaded = await self._store.load(id)
            except SessionEnded:
                return None
        return None if loaded is None else loaded.fields

    async def end(self, id: SessionId) -> bool:
        """End the session; whether it was stored. If not, its id is refused all the same from now on."""
        with _store_errors():
            [was_stored] = await self._store.describe([id])
            await self._store.end(id, self._lifetime)
        return was_stored is not None

    async def _ids(self) -> AsyncIterator[SessionId]:
        with _store_errors():
            async for id in self._store.sessions():
                if is_session_id(id):  # another program may have keys of its own there
                    yield id

    def _ask(self, ids: list[SessionId] | None) -> dict[int, Any]:
        """Blocks the event loop, where nothing else is going on."""
        timeout = SILENT_SECONDS if self.silent else IN_USE_SECONDS
        question = {"ids": ids, "timeout": timeout}
        # By a connection of its own: the store may take a while, and a gateway closes one that is idle for a minute.
        with ControlClient(self._gateway.path) as gateway:
            facts = gateway.request("sessions.in_use", question, timeout=timeout + ANSWER_SECONDS)
        in_use = cast(SessionsInUse, facts)
        self.silent.update(in_use["silent"])
        return in_use["answers"]


@asynccontextmanager
async def session_desk(gateway: ControlClient) -> AsyncIterator[SessionDesk]:
    """That of `gateway`, on its store. Every call to the store may raise `StoreError`."""
    place = cast(SessionStorePlace, gateway.request("sessions.store"))
    store = RedisSessionStore.from_url(place["url"], prefix=place["prefix"], timeout=STORE_SECONDS)
    try:
        yield SessionDesk(gateway, store, place["lifetime"])
    finally:
        await store.close()


def is_session_id(text: str) -> bool:
    """Whether it is 32 lowercase hex digits."""
    try:
        check_session_id(SessionId(text))
    except ValueError:
        return False
    return True


def _facts(id: SessionId, about: Described, in_use: dict[int, dict[str, int]], now: float) -> SessionFacts:
    return {
        "id": id,
        "age": None if about.created is None else max(0, int(now) - about.created),
        "ttl": about.seconds_left,
        "fields": about.field_count,
        "bytes": about.byte_count,
        "connections": {slot: counts[id] for slot, counts in sorted(in_use.items()) if id in counts},
    }


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except SessionUnavailable as error:
        raise StoreError(redacted(" ".join(str(error).split()))) from error
