"""Stands between an ASGI server and an application that mints ids: no answer with a new id leaves before it is known.

It is an ASGI application around another, not a reader of the answer's bytes: here an answer is a head and pieces of a
body, whatever framing the server gives them, and holding one back is no more than not sending it on yet. The server
needs no hook. The parts in which it is put together::

    registrar = Registrar(counters=counters)            # connect(link), disconnect(), received(Learnt)
    served = Learner(app, [parse_learn(text) for text in settings.learn], keys, register=registrar.register)

As long as the requests of a connection are not routed one by one, it also says ``Connection: close`` in each answer if
the next request may belong elsewhere; the server obeys it (uvicorn does).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from stickygw.routing.keys import Key
from stickygw.routing.learning import (
    MAX_BODY_BYTES,
    Fields,
    Learnable,
    decoded,
    differs_by_request,
    is_engineio,
    is_unknown_session,
)
from stickygw.routing.request_head import NEED_MORE, Head, first_values

log = logging.getLogger("stickygw.app")

Message = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

_CLOSE = (b"connection", b"close")


class Learner:
    """`app`, with the ids of `learn` learnt from its answers; `keys` are the affinity keys of the gateway beside them.

    `register(keys)` returns when requests with these keys are led to this worker, or nobody sees to that; it does not
    raise. `is_proxied`: one connection may carry the requests of many clients.
    """

    def __init__(
        self,
        app: Application,
        learn: Sequence[Learnable],
        keys: Sequence[Key],
        *,
        register: Callable[[list[bytes]], Awaitable[None]],
        is_proxied: bool = False,
    ) -> None:
        self.learn = tuple(learn)
        self.register = register
        all_keys = [*(kind.key for kind in learn), *keys]
        self.closes_after_answer = is_proxied or differs_by_request(all_keys)
        """Whether each answer is the last of its connection."""
        self._app = app
        self._is_idle = not self.closes_after_answer
        self._warns = all(key.text != "query:sid" for key in all_keys)

    def __call__(self, scope: Message, receive: Any, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan" or (self._is_idle and b"EIO=" not in scope["query_string"]):
            return self._app(scope, receive, send)
        return self._app(scope, receive, _Answer(self, _request(scope), send).send)

    def note_unknown_session(self) -> None:
        """An Engine.IO client came here with an id that this worker does not know: the first time, say what helps."""
        if self._warns:
            self._warns = False
            log.warning(
                "an Engine.IO client came to a worker that does not know its session; with several workers, run with "
                "--learn engineio"
            )


class _Answer:
    """One answer on its way out. What is held back is its head, and a body of which nobody has read anything yet."""

    def __init__(self, learner: Learner, request: Head, send: Send) -> None:
        self._learner = learner
        self._request = request
        self._send = send
        self._status = 0
        self._coding = b""
        self._keys: list[bytes] = []
        self._looking: list[Learnable] = []
        """Those whose id may be in the body."""
        self._held: list[Message] = []
        self._start = b""

    async def send(self, message: Message) -> None:
        """Send `message` on, or keep it until the next one."""
        if "headers" in message:  # an iterable, perhaps for one time only
            message = {**message, "headers": list(message["headers"])}
        match message["type"]:
            case "http.response.start":
                await self._begin(message)
            case "http.response.body":
                await self._go_on(message)
            case "websocket.accept" | "websocket.http.response.start":
                self._find_in_head(_fields(message))
                await self._pass_on(message)
            case _:
                await self._pass_on(message)

    async def _begin(self, message: Message) -> None:
        fields = _fields(message)
        self._status = message["status"]
        self._coding = next((value for name, value in fields if name == b"content-encoding"), b"")
        self._find_in_head(fields)
        self._looking = [kind for kind in self._learner.learn if kind.is_in_body(self._request, self._status)]
        if self._learner.closes_after_answer:
            others = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
            message = {**message, "headers": [*others, _CLOSE]}
        if self._looking:
            self._held.append(message)
        else:
            await self._pass_on(message)

    async def _go_on(self, message: Message) -> None:
        is_whole = not message.get("more_body", False)
        if self._status == 400 and is_engineio(self._request) and is_unknown_session(400, message.get("body", b"")):
            self._learner.note_unknown_session()
        if self._looking:
            self._start += message.get("body", b"")[:MAX_BODY_BYTES]
            self._look(is_whole or len(self._start) >= MAX_BODY_BYTES)
        if self._looking:
            # Whoever waits for the rest waits for the application: a client can begin nothing with half an id.
            self._held.append(message)
        else:
            await self._pass_on(message)

    def _look(self, is_whole: bool) -> None:
        start = decoded(self._start, self._coding)
        undecided = []
        for kind in self._looking:
            found = kind.in_body(start, is_whole=is_whole)
            if found is NEED_MORE:
                undecided.append(kind)
            else:
                self._add(kind, found)
        self._looking = undecided

    def _find_in_head(self, fields: Fields) -> None:
        for kind in self._learner.learn:
            self._add(kind, kind.in_head(fields))

    def _add(self, kind: Learnable, value: bytes | None) -> None:
        key = None if value is None else kind.key.for_value(value)
        # What the request brought led it here: answers may repeat it each time (MCP's do).
        if key is not None and key != kind.key.of(self._request, ""):
            self._keys.append(key)

    async def _pass_on(self, message: Message) -> None:
        """Send what was held back and `message`, after the ids in them are known."""
        self._looking = []
        if self._keys:
            keys, self._keys = self._keys, []
            await self._learner.register(keys)
        held, self._held = self._held, []
        for one in (*held, message):
            await self._send(one)


def _request(scope: Message) -> Head:
    """The request of an HTTP or WebSocket scope, so that keys are found in it as the primary finds them."""
    query = scope["query_string"].decode("latin-1")
    fields = list(scope["headers"])
    return Head(
        scope.get("method", "GET"),
        "",
        "",
        query,
        scope["http_version"],
        fields,
        0,
        scope["type"] == "websocket",
        first_values(fields),
    )


def _fields(message: Message) -> Fields:
    return [(name.lower(), value) for name, value in message.get("headers", ())]
