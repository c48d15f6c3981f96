"""A WebSocket of an ASGI application, beneath which there is no connection, and the worker whose rooms it is in."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stickygw import App
from stickygw.testing import AppClient

marked: contextvars.ContextVar[str] = contextvars.ContextVar("marked", default="")


class HandMade:
    """A WebSocket that takes what `may_send` lets through, and remembers it."""

    def __init__(self) -> None:
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.sent: list[str | bytes | tuple[int, str]] = []
        self.error: Exception | None = None
        self.contexts: set[str] = set()

    async def send_text(self, data: str) -> None:
        await self.may_send.wait()
        if self.error is not None:
            raise self.error
        self.contexts.add(marked.get())
        self.sent.append(data)

    async def send_bytes(self, data: bytes) -> None:
        await self.may_send.wait()
        self.sent.append(data)

    async def close(self, code: int, reason: str) -> None:
        self.sent.append((code, reason))


@asynccontextmanager
async def worker_left_empty() -> AsyncIterator[AppClient]:
    """A worker with small bounds, in whose rooms nobody is at the end."""
    async with AppClient(App(), outbox_bytes=1000, outbox_seconds=0.2) as client:
        yield client
        assert not client.runtime.hub._rooms, "everybody has left"
        assert not client.runtime.hub._rooms_of


def publish(client: AppClient, message: Any, room: str = "r") -> None:
    client._app.publish(room, message)
