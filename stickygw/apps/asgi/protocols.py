"""What uvicorn does of a connection: the request-response cycle of HTTP, and its WebSocket protocol class."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, cast
from urllib.parse import unquote

import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from stickygw.errors import TargetError
from stickygw.routing.request_head import Head

log = logging.getLogger("uvicorn.error")


def check_uvicorn() -> None:
    """Raise `TargetError` if the uvicorn that is installed has another cycle than the one that is used here.

    It is no public interface of uvicorn's.
    """
    used = {"scope", "transport", "flow", "message_event", "expect_100_continue", "keep_alive", "on_response"}
    if missing := used - inspect.signature(RequestResponseCycle).parameters.keys():
        raise TargetError(
            f"uvicorn {uvicorn.__version__} is not one that stickygw knows how to use ({', '.join(sorted(missing))}): "
            "install another version, 0.52.1 or newer"
        )


class HttpProtocol(asyncio.Protocol):
    """Answers the requests of one connection, one at a time; `on_answered` is called when an answer is complete.

    It is what uvicorn's `HttpToolsProtocol` does beside parsing. Two parsers that could read a request differently are
    how requests are smuggled, so the gate's reading of a head and ours of a body are the only ones; the application's
    calls, and the answer that they make, are uvicorn's `RequestResponseCycle`.
    """

    cycle: RequestResponseCycle | None = None
    """The last request's."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        transport: asyncio.Transport,
        on_answered: Callable[[], None],
    ) -> None:
        self.client: tuple[str, int] | None = None
        self.is_secure = False
        self._loop = asyncio.get_running_loop()
        self._app = config.loaded_app
        self._root_path = config.root_path
        self._state = state
        self._app_state = app_state
        self._transport = transport
        self._flow = FlowControl(transport)
        self._server = get_local_addr(transport)
        self._on_answered = on_answered

    def begin(self, head: Head, context: Context, *, has_body: bool, keep_alive: bool) -> None:
        """Let the application answer the request `head`, in a copy of `context`; the answer before is complete.

        `keep_alive`: whether another request may follow.
        """
        self.cycle = cycle = RequestResponseCycle(
            scope=cast(Any, self._scope_of(head)),
            transport=self._transport,
            flow=self._flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=self._state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=_expects_continue(head),
            keep_alive=keep_alive,
            on_response=self._answered,
        )
        if not has_body:
            cycle.more_body = False
            cycle.message_event.set()
        task = context.run(self._loop.create_task, cycle.run_asgi(self._app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def _scope_of(self, head: Head) -> dict[str, Any]:
        """See the HTTP connection scope of the ASGI specification."""
        path = unquote(head.path) if "%" in head.path else head.path
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._server,
            "client": self.client,
            "scheme": "https" if self.is_secure else "http",
            "method": head.method,
            "root_path": self._root_path,
            "path": self._root_path + path,
            "raw_path": (self._root_path + head.path).encode("ascii"),
            "query_string": head.query.encode("ascii"),
            "headers": head.fields.copy(),
            "state": self._app_state.copy(),
        }

    def add_body(self, data: bytes) -> None:
        """Some of the request's body."""
        cycle = self.cycle
        assert cycle is not None
        if not cycle.response_complete:
            cycle.body += data
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self._flow.pause_reading()
            cycle.message_event.set()

    def end_body(self, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        """That was all of the body. As uvicorn has them, `trailers` are added to the fields of the head."""
        cycle = self.cycle
        assert cycle is not None
        cast(Any, cycle.scope["headers"]).extend(trailers)
        cycle.more_body = False
        cycle.message_event.set()

    def _answered(self) -> None:
        if self._flow.read_paused:
            self._flow.resume_reading()
        self._on_answered()

    def end_with_answer(self) -> None:
        """Let the answer under way be the connection's last."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # What the transport tells

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed: the application hears it where it waits."""
        if self.cycle is not None:
            if not self.cycle.response_complete:
                self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._flow.resume_writing()


def _expects_continue(head: Head) -> bool:
    """RFC 9110, 10.1.1: clients of HTTP/1.0 do not know of it."""
    expected = head.first.get(b"expect")
    return expected is not None and expected.lower() == b"100-continue" and head.version != "1.0"


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Counts the messages it receives."""

    received_messages = 0

    def send_receive_event_to_app(self) -> None:
        self.received_messages += 1
        WebSocketsSansIOProtocol.send_receive_event_to_app(self)  # `super` takes longer, and this is done for each
