"""A client of the probe application, with a cookie jar of its own."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect

DEADLINE = 20.0
"""Seconds for one answer; many times what it takes."""


class Client:
    """One visitor: keeps its cookie from one connection to the next."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        self._url = url
        self._headers = headers or {}
        self._connection: ClientConnection | None = None
        self.cookie: str | None = None
        self.cookies_set = 0

    async def open(self) -> Self:
        """Connect, as a browser would: with the cookie that was set last."""
        headers = dict(self._headers)
        if self.cookie is not None:
            headers["Cookie"] = self.cookie
        self._connection = await connect(
            self._url, additional_headers=headers, compression=None, open_timeout=DEADLINE, proxy=None
        )
        assert self._connection.response is not None
        set_cookie = self._connection.response.headers.get("Set-Cookie")
        if set_cookie is not None:
            self.cookie = set_cookie.partition(";")[0]
            self.cookies_set += 1
        return self

    @property
    def connection(self) -> ClientConnection:
        """The open connection."""
        assert self._connection is not None
        return self._connection

    async def send(self, message: Any) -> None:
        """Send one message as JSON."""
        await self.connection.send(json.dumps(message))

    async def receive(self) -> Any:
        """The next message."""
        async with asyncio.timeout(DEADLINE):
            return json.loads(await self.connection.recv())

    async def ask(self, **question: Any) -> Any:
        """Send a question and get the answer."""
        await self.send(question)
        return await self.receive()

    async def who(self) -> dict[str, Any]:
        """What the probe says about itself and this session."""
        answer: dict[str, Any] = await self.ask(do="who")
        return answer

    async def close(self) -> None:
        """Close with 1000."""
        if self._connection is not None:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def gather_bounded(limit: int, *coroutines: Any) -> list[Any]:
    """Like `asyncio.gather`, with at most `limit` at work at once."""
    gate = asyncio.Semaphore(limit)

    async def run(coroutine: Any) -> Any:
        async with gate:
            return await coroutine

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(coroutine)) for coroutine in coroutines]
    return [task.result() for task in tasks]
