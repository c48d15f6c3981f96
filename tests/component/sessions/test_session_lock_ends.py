"""`Session.lock` when its block is cancelled, or the store is away: the lease does not outlive its holder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.errors import SessionUnavailable
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.redis import RedisSessionStore
from stickygw.sessions.session import Session
from stickygw.types import SessionId

ID = SessionId("0123456789abcdef" * 2)
TTL = 100


class Store(MemorySessionStore):
    """A store whose answers take a turn of the loop, or more, and may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lost_answers = 0
        self.lost_releases = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.asked = 0

    async def lease(self, id: SessionId, token: str, seconds: float) -> bool:
        is_had = await super().lease(id, token, seconds)
        self.asked += 1
        await self.may_answer.wait()
        if self.lost_answers:
            self.lost_answers -= 1
            raise SessionUnavailable("away")
        return is_had

    async def release_lease(self, id: SessionId, token: str) -> None:
        if self.lost_releases:
            self.lost_releases -= 1
            raise SessionUnavailable("away")
        await asyncio.sleep(0)
        await super().release_lease(id, token)

    async def write(self, *arguments: Any, **named: Any) -> None:
        await self.may_write.wait()
        await super().write(*arguments, **named)

    @property
    def is_leased(self) -> bool:
        return self._leases.get(ID) is not None


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def session(store: Store) -> Session:
    return Session(ID, store, ttl=TTL)


@pytest.fixture
async def of_server(own_valkey: ValkeyServer) -> AsyncIterator[Session]:
    store = RedisSessionStore.from_url(own_valkey.url, prefix="t", timeout=0.3)
    yield Session(ID, store, ttl=TTL)
    await store.close()


async def test_a_lease_whose_answer_was_lost_is_given_back(
    store: Store, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.sessions.leases.RELEASE_RETRY_SECONDS", 0.001)
    store.lost_answers, store.lost_releases = 1, 3
    with pytest.raises(SessionUnavailable):
        async with session.lock():
            raise AssertionError("nobody knows that it is locked")
    await wait_until(lambda: not store.is_leased)


async def test_a_lease_that_a_paused_server_gave_later_is_given_back(
    own_valkey: ValkeyServer, of_server: Session
) -> None:
    own_valkey.pause()
    try:
        with pytest.raises(SessionUnavailable):
            async with of_server.lock():
                raise AssertionError("nobody knows that it is locked")
    finally:
        own_valkey.resume()
    async with of_server.lock(wait=5):
        pass


async def test_who_is_cancelled_while_the_store_is_asked_leaves_no_lease(store: Store, session: Session) -> None:
    async def locking() -> None:
        async with session.lock():
            raise AssertionError("it was cancelled before")

    store.may_answer.clear()
    task = asyncio.create_task(locking())
    await wait_until(lambda: store.asked == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: not store.is_leased)


async def test_a_block_that_a_cancel_scope_ends_is_saved_and_then_gives_its_lease_back(
    store: Store, session: Session
) -> None:
    with anyio.CancelScope() as scope:
        async with session.lock():
            session["n"] = 1
            store.may_write.clear()
            scope.cancel()
            await anyio.sleep_forever()
    assert store.is_leased  # until what was changed is written
    store.may_write.set()
    await wait_until(lambda: not store.is_leased)
    loaded = await store.load(ID)
    assert loaded is not None
    assert loaded.fields == {"n": b"\x01"}


async def test_changes_that_cannot_be_written_do_not_keep_the_lease_and_their_error_is_the_caller_s(
    store: Store, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: Any, **named: Any) -> None:
        raise SessionUnavailable("away")

    monkeypatch.setattr(store, "write", away)
    with pytest.raises(SessionUnavailable, match="away"):
        async with session.lock():
            session["n"] = 1
    assert not store.is_leased


async def test_changes_that_cannot_be_written_after_a_cancellation_are_told_to_the_log(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*arguments: Any, **named: Any) -> None:
        await asyncio.sleep(0)
        raise SessionUnavailable("away")

    session = Session(ID, store, ttl=TTL)
    monkeypatch.setattr(store, "write", away)
    with anyio.CancelScope() as scope:
        async with session.lock():
            session["n"] = 1
            scope.cancel()
            await anyio.sleep_forever()
    await wait_until(lambda: "after a cancellation failed" in caplog.text)
    assert not store.is_leased
