"""A WebSocket of an ASGI application, beneath which there is no connection: `HandMade`."""

from __future__ import annotations

import asyncio
import contextvars

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
