"""uvicorn's protocol classes as they are, but for telling their connection what it needs to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState


class HttpProtocol(HttpToolsProtocol):
    """Answers one request at a time; `on_answered` is called when an answer is complete and another may follow.

    Pipelined requests and the time between two of them are the connection's business.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], on_answered: Callable[[], None]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._on_answered = on_answered

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._on_answered()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Counts the messages it receives."""

    received_messages = 0

    def send_receive_event_to_app(self) -> None:
        self.received_messages += 1
        super().send_receive_event_to_app()
