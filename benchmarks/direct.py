"""The worker's own code behind a listener of its own, without a primary: what a message costs without a gateway.

``python -m benchmarks.direct FILE:ATTRIBUTE`` prints its port and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvloop

from stickygw.apps.loader import load_target
from stickygw.apps.native.app import App
from stickygw.apps.native.endpoint import Arrival, Endpoint
from stickygw.apps.native.runtime import Identity, Runtime
from stickygw.bridge.hub import Hub
from stickygw.bridge.memory import MemoryBridge, MemoryBus
from stickygw.config.settings import Settings
from stickygw.connections.transport import SocketTransport
from stickygw.observability.counters import Counters
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.request_head import Head, examine
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.types import GatewayId, HandOverId, Slot
from stickygw.wire.link import Offer


async def serve(target: str) -> None:
    loop = asyncio.get_running_loop()
    app = load_target(target, directory=Path.cwd())
    assert isinstance(app, App)
    counters = Counters()
    hub = Hub(counters)
    runtime = Runtime(
        app,
        identity=Identity(Slot(0), 1, 1, GatewayId("00000000")),
        settings=Settings(),
        sessions=Sessions(MemorySessionStore(), ttl=3600),
        hub=hub,
        bridge=MemoryBridge(MemoryBus(), on_message=lambda room, message: None),
        cookie_keys=CookieKeys([b"k" * 32]),
        counters=counters,
    )
    await runtime.start()
    endpoint = Endpoint(runtime)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))

    def accepted() -> None:
        sock, _ = listener.accept()
        transport = SocketTransport(sock, loop, runtime.flusher)
        loop.call_later(0.005, begin, transport)  # the head is on its way; how long we wait for it costs no CPU

    def begin(transport: SocketTransport) -> None:
        data = transport.receive_nowait() or b""
        head = examine(data)
        assert isinstance(head, Head)
        offer = Offer(HandOverId(0), None, 0, Slot(0), "127.0.0.1", 0, False, "direct")
        arrival = Arrival(offer, head, data[head.size :], transport, lambda: None)
        runtime.spawn(endpoint.serve(arrival))

    loop.add_reader(listener.fileno(), accepted)
    await ended


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
