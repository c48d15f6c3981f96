"""Calls of an ASGI application in the test's own event loop, message by message, and a browser that makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from types import TracebackType
from typing import Any, Self

DEADLINE = 5.0
"""Seconds for each message of an application, and for its end."""

Message = dict[str, Any]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
Fields = Sequence[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What the application answered over HTTP, or in the place of a WebSocket."""

    status: int
    fields: Fields
    body: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """The body."""
        return self.body.decode()

    def get(self, name: str) -> str | None:
        """The values of all fields of this name, joined as RFC 9110 §5.3 says; None: there is none."""
        values = [value.decode() for given, value in self.fields if given.decode().lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def cookies(self) -> list[str]:
        """The values of all Set-Cookie fields."""
        return [value.decode() for name, value in self.fields if name.lower() == b"set-cookie"]

    @property
    def cookie(self) -> str | None:
        """The only Set-Cookie's value, or None."""
        assert len(self.cookies) <= 1, self.cookies
        return self.cookies[0] if self.cookies else None


class Call:
    """One call of the application, which has begun. As a context: it is cancelled at the end, and what it raised is
    raised, unless `end` did."""

    def __init__(self, app: AsgiApp, scope: Message) -> None:
        self.scope = scope
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()  # None: the application is done
        self._is_ended = False
        self.task = asyncio.ensure_future(self._run(app))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        if error is None and not self._is_ended and not self.task.cancelled():
            self.task.result()

    def give(self, type: str, **message: Any) -> None:
        """A message for the application."""
        self._to_app.put_nowait({"type": type, **message})

    async def next(self) -> Message:
        """The application's next message; what it raises, if it ends without one."""
        async with asyncio.timeout(DEADLINE):
            message = await self._from_app.get()
        if message is None:
            await self.task
            raise AssertionError("the application has ended")
        return message

    async def end(self) -> None:
        """Wait until the application is done; raises what it raised."""
        self._is_ended = True
        await asyncio.wait_for(asyncio.shield(self.task), DEADLINE)

    async def answer(self) -> Answer:
        """The whole answer. The application may still be busy behind it."""
        head = await self.next()
        assert head["type"].endswith("http.response.start"), head
        answer = Answer(head["status"], head["headers"])
        while (body := await self.next()).get("more_body"):
            answer.body += body["body"]
        answer.body += body.get("body", b"")
        return answer

    async def _run(self, app: AsgiApp) -> None:
        try:
            await app(self.scope, self._to_app.get, self._from_app.put)
        finally:
            self._from_app.put_nowait(None)


@asynccontextmanager
async def running(app: AsgiApp) -> AsyncIterator[None]:
    """The application between its startup and its shutdown."""
    async with Call(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}) as call:
        call.give("lifespan.startup")
        assert await call.next() == {"type": "lifespan.startup.complete"}
        yield
        call.give("lifespan.shutdown")
        assert await call.next() == {"type": "lifespan.shutdown.complete"}
        await call.end()


class Browser:
    """A client that keeps its cookies: those that the application sets, and `cookies` from the start."""

    def __init__(self, app: AsgiApp, *, is_tls: bool = False, **cookies: str) -> None:
        self._app = app
        self._is_tls = is_tls
        self.cookies = cookies

    def begin(self, path: str = "/", *, method: str = "GET") -> Call:
        """Send a request."""
        call = Call(self._app, self._scope("http", path, method=method))
        call.give("http.request", body=b"", more_body=False)
        return call

    async def get(self, path: str = "/", *, method: str = "GET") -> Answer:
        """A whole request, the application's end included."""
        async with self.begin(path, method=method) as call:
            answer = self.took(await call.answer())
            await call.end()
            return answer

    def open(self, path: str = "/ws", *, can_deny: bool = True) -> Call:
        """Ask for a WebSocket. `can_deny`: the server has the extension for a whole answer in its place."""
        extensions = {"websocket.http.response": {}} if can_deny else {}
        call = Call(self._app, self._scope("websocket", path, extensions=extensions, subprotocols=[]))
        call.give("websocket.connect")
        return call

    async def connect(self, path: str = "/ws") -> Call:
        """`open`, and the application has accepted."""
        call = self.open(path)
        accepted = await call.next()
        assert accepted["type"] == "websocket.accept", accepted
        self.took(Answer(101, accepted["headers"]))
        return call

    def took(self, answer: Answer) -> Answer:
        """`answer`, whose cookies are kept from now on."""
        for line in answer.cookies:
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    def _scope(self, type: str, path: str, **more: Any) -> Message:
        path, _, query = path.partition("?")
        fields = [(b"host", b"testserver")]
        if self.cookies:
            fields.append((b"cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode()))
        return {
            "type": type,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": ("https" if type == "http" else "wss") if self._is_tls else ("http" if type == "http" else "ws"),
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": fields,
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
            **more,
        }
