"""The WebSocket opening handshake (RFC 6455 §4.2) on a head that the gate has passed: negotiation only, no I/O."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from stickygw.connections.receiving import library_log
from stickygw.routing.request_head import Head
from stickygw.wire.prepared import DEFLATE_WINDOW_BITS


class _SharedDeflate(ServerPerMessageDeflateFactory):
    """permessage-deflate in the one form whose frames all receivers can share (RFC 7692 §7.1).

    No context takeover, so a message is compressed once for everybody; a client that asks for smaller windows than ours
    goes without compression.
    """

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=DEFLATE_WINDOW_BITS,
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits < DEFLATE_WINDOW_BITS:
            raise NegotiationError("a smaller window than ours")
        return answer, extension


_DEFLATE = (_SharedDeflate(),)


def headers_of(head: Head) -> Headers:
    """The fields of a head as the case-insensitive multi-dict of the `websockets` library (latin-1: RFC 9110 §5.5)."""
    headers = Headers()
    for name, value in head.fields:
        headers[name.decode("ascii")] = value.decode("latin-1")
    return headers


def _preferred(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The first of ours that the client speaks too."""
    return next((name for name in protocol.available_subprotocols or () if name in offered), None)


def negotiate(
    head: Head, headers: Headers, *, subprotocols: Sequence[str], compression: bool, max_message: int
) -> tuple[ServerProtocol, Response]:
    """Accept the handshake: a protocol in state OPEN, between two frames, and the response to send.

    The response has a status other than 101 where the library finds the request wanting. A client that speaks none of
    our `subprotocols` is accepted without one (RFC 6455 §4.2.2): browsers then fail the connection if they asked.
    """
    protocol = ServerProtocol(
        state=OPEN,  # so that its parser reads frames: the head was read by our gate
        extensions=_DEFLATE if compression else None,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        select_subprotocol=_preferred,
        max_size=max_message,
        logger=library_log,
    )
    return protocol, protocol.accept(Request(head.target, headers))


def negotiated_before(*, client_window_bits: int, max_message: int) -> Protocol:
    """A protocol as `negotiate` makes one, of a handshake that was elsewhere: in state OPEN, between two frames.

    `client_window_bits` is the client's of permessage-deflate, 8 … 15; 0: it was not agreed upon.
    """
    protocol = Protocol(SERVER, state=OPEN, max_size=max_message, logger=library_log)
    if client_window_bits:
        protocol.extensions = [
            PerMessageDeflate(
                remote_no_context_takeover=True,
                local_no_context_takeover=True,
                remote_max_window_bits=client_window_bits,
                local_max_window_bits=DEFLATE_WINDOW_BITS,
            )
        ]
    return protocol
