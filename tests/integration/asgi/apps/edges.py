"""A plain ASGI application whose answers show what the server gave it; one path for each edge."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import unquote


class Notes(list[str]):
    """What has happened, in order. Whoever waits for something is woken by each."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def append(self, note: str) -> None:
        super().append(note)
        self._changed.set()
        self._changed = asyncio.Event()

    async def first(self, start: str = "") -> list[str]:
        """The first that begins so, once there is one; none, if that takes more than five seconds."""
        try:
            async with asyncio.timeout(5):
                while not (found := [note for note in self if note.startswith(start)]):
                    await self._changed.wait()
        except TimeoutError:
            return []
        return found[:1]


waiting = Notes()
"""Where requests have begun to wait for their clients since ``/forget``."""

seen = Notes()
"""What requests that nobody waited for have come to; told by ``/seen``."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["started"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await PATHS[scope["path"].removeprefix(scope["root_path"])](scope, receive, send)
    else:
        await SOCKETS[scope["path"].removeprefix(scope["root_path"])](scope, receive, send)


async def answer(send: Any, *pieces: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def body_of(receive: Any) -> bytes | None:
    """The whole body; None: the client has gone."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


def facts(scope: Any) -> dict[str, Any]:
    names = ("type", "method", "path", "raw_path", "root_path", "query_string", "http_version", "scheme", "headers")
    shown = {name: repr(scope.get(name)) for name in names}
    return shown | {"client": scope["client"][0], "state": scope["state"], "asgi": scope["asgi"]}


async def scope_of(scope: Any, receive: Any, send: Any) -> None:
    await body_of(receive)
    body = json.dumps(facts(scope), sort_keys=True).encode()
    await answer(send, body, headers=[(b"content-length", b"%d" % len(body))])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    waiting.append(scope["path"])
    body = await body_of(receive)
    if body is None:
        seen.append("disconnect in the body")
    else:
        await answer(send, body, headers=[(b"content-length", b"%d" % len(body)), (b"X-Case", b"Kept")])


async def size(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"%d" % len(await body_of(receive) or b""))


async def stream(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, *(b"piece %d;" % number for number in range(50)))


async def big(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, *(bytes(65536) for _ in range(64)))


async def unread(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"without a look", headers=[(b"content-length", b"14")])


async def early(scope: Any, receive: Any, send: Any) -> None:
    waiting.append(scope["path"])
    while (await receive())["type"] != "http.disconnect":
        pass
    seen.append("disconnect")


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, status=int(scope["query_string"]))


async def closing(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"the last", headers=[(b"connection", b"close"), (b"content-length", b"8")])


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("before the answer")


async def raises_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("within the answer")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Without an answer."""


async def too_short(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"ab", headers=[(b"content-length", b"5")])


async def too_long(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"abcdef", headers=[(b"content-length", b"5")])


async def bad_header(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"x", headers=[(b"x-split", b"a\r\nSet-Cookie: b=c")])


async def told(scope: Any, receive: Any, send: Any) -> None:
    """The first event that begins as the query says, once there is one."""
    found = await seen.first(unquote(scope["query_string"].decode()))
    await answer(send, json.dumps(found).encode())


async def waited(scope: Any, receive: Any, send: Any) -> None:
    """Answered when some request waits for more of its client."""
    await waiting.first()
    await answer(send, json.dumps(waiting).encode())


async def forget(scope: Any, receive: Any, send: Any) -> None:
    seen.clear()
    waiting.clear()
    await answer(send)


PATHS = {
    "/scope": scope_of,
    "/scope%2Fx": scope_of,
    "/scope/x": scope_of,
    "/echo": echo,
    "/size": size,
    "/stream": stream,
    "/big": big,
    "/unread": unread,
    "/early": early,
    "/waited": waited,
    "/bare": bare,
    "/closing": closing,
    "/raises": raises,
    "/raises-late": raises_late,
    "/returns": returns,
    "/too-short": too_short,
    "/too-long": too_long,
    "/bad-header": bad_header,
    "/seen": told,
    "/forget": forget,
}


# --- WebSockets


async def ws_echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "headers": [(b"x-own", b"1")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            seen.append(f"disconnect {message['code']} {message.get('reason')}")
            return
        given = {name: message[name] for name in ("text", "bytes") if message.get(name) is not None}
        await send({"type": "websocket.send", **given})


async def ws_scope(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    shown = facts(scope) | {"subprotocols": scope["subprotocols"], "extensions": sorted(scope["extensions"])}
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    await send({"type": "websocket.send", "text": json.dumps(shown, sort_keys=True)})
    await send({"type": "websocket.close", "code": 4000, "reason": "shown"})


async def ws_denied(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-why", b"teapot")]})
    await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"and stout"})


async def ws_rejected(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def ws_raises(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("before it is accepted")


async def ws_raises_late(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    raise RuntimeError("after it was accepted")


async def ws_silent(scope: Any, receive: Any, send: Any) -> None:
    """Says nothing until the client has gone."""
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    seen.append(f"silent {message['code']}")


async def ws_flood(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        try:
            await send({"type": "websocket.send", "bytes": bytes(32768)})
        except OSError:
            seen.append("flood over")
            raise


SOCKETS = {
    "/echo": ws_echo,
    "/scope": ws_scope,
    "/denied": ws_denied,
    "/rejected": ws_rejected,
    "/raises": ws_raises,
    "/raises-late": ws_raises_late,
    "/silent": ws_silent,
    "/flood": ws_flood,
}
