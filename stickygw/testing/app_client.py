"""`AppClient`: runs an `App` in the test's own process and event loop, without ports, Redis or worker processes.

The application is served by the worker's own code over socket pairs: handshake, frames, sessions and rooms are the real
ones; session store and bridge are the in-memory ones. `App.tell` and `App.ask` reach the application itself, the only
worker. An ASGI application is run as ``App(http=asgi_app)``. What needs several processes, routing and restarts, is
`stickygw.testing.gateway`'s.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConcurrencyError, InvalidStatus
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.typing import Subprotocol

from stickygw.apps.native.app import App
from stickygw.apps.native.endpoint import Arrival, Endpoint
from stickygw.apps.native.own_redis import OwnRedis
from stickygw.apps.native.runtime import Identity, Runtime
from stickygw.bridge.hub import Hub
from stickygw.bridge.memory import MemoryBridge, MemoryBus
from stickygw.config.settings import Settings
from stickygw.connections.transport import SocketTransport
from stickygw.errors import ConnectionClosed
from stickygw.observability.counters import Counters
from stickygw.primary.tells import Tells
from stickygw.routing.cookie import CookieKeys
from stickygw.routing.keys import parse_key
from stickygw.routing.request_head import NEED_MORE, Head, examine
from stickygw.sessions.memory import MemorySessionStore
from stickygw.sessions.registry import Sessions
from stickygw.testing.http_exchange import HOST, TestAnswer, exchange
from stickygw.types import GatewayId, HandOverId, SessionId, Slot, WorkerId
from stickygw.wire.link import Answer, Answered, Deliver, Offer, Tell

DEADLINE = 5.0
"""Seconds that `TestConnection.receive` waits if it is not told otherwise, and that a handshake may take."""

_KEYS = CookieKeys([b"a key for tests, known to everyone"])


class HandshakeRefused(AssertionError):
    """The application refused the handshake: `status`, `body` as text, and the fields of the answer, `headers`."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"the handshake was refused with {status}: {body.strip()}")
        self.status = status
        self.body = body
        self.headers = headers or {}


class TestConnection:
    """The client's end of one WebSocket."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    def __init__(self, app: App, connection: ClientConnection, session_id: SessionId) -> None:
        self._app = app
        self.connection = connection
        """The `websockets` client beneath, for what is not here."""
        self.session_id = session_id
        """Whose visitor this is: ``connect(…, session=other.session_id)`` is a second tab of the same one."""

    @property
    def subprotocol(self) -> str | None:
        """What the handshake agreed on."""
        return self.connection.subprotocol

    @property
    def close_code(self) -> int | None:
        """The code of the closing handshake; None while the connection is open."""
        return self.connection.close_code

    @property
    def close_reason(self) -> str | None:
        """Its reason."""
        return self.connection.close_reason

    async def send(self, message: Any) -> None:
        """Send `message`, encoded by the application's codec. Raises `stickygw.ConnectionClosed`."""
        encoded = self._app.codec.encode(message)
        try:
            await self.connection.send(encoded.payload, text=encoded.is_text)
        except PeerClosed:
            raise self._closed() from None

    async def receive(self, timeout: float = DEADLINE) -> Any:
        """The next message, decoded by the application's codec.

        Raises `TimeoutError` when none comes within `timeout` seconds, `stickygw.ConnectionClosed` when the
        connection has ended.
        """
        try:
            async with asyncio.timeout(timeout):
                return self._app.codec.decode(await self.connection.recv())
        except PeerClosed:
            raise self._closed() from None

    async def wait_closed(self, timeout: float = DEADLINE) -> int:
        """Wait until the application has closed the connection; the close code. Messages on the way are dropped."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self.connection.recv()
        except PeerClosed:
            return self._closed().code

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the client's side, and wait until the connection is over. Messages on the way are dropped."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._drop_all())  # the close frame is behind them
            await self.connection.close(code, reason)

    async def _drop_all(self) -> None:
        with suppress(PeerClosed, ConcurrencyError):  # or somebody else receives them
            while True:
                await self.connection.recv()

    def _closed(self) -> ConnectionClosed:
        return ConnectionClosed(self.connection.close_code or 1006, self.connection.close_reason or "")


class _Alone:
    """The link to a primary whose only worker this application is. It is never full."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._slot = runtime.identity.slot
        self._primary = Tells(
            owners=lambda: {self._slot: WorkerId(1)},
            least_loaded=lambda: self._slot,
            send=self._to_worker,
            wait_writable=lambda worker, callback: None,
            counters=runtime.counters,
        )
        runtime.tells.connect(self)

    def send(self, message: Tell | Answer) -> bool:
        # In a later turn, as over a socket: `tell` returns before its handler runs.
        self._runtime.loop.call_soon(self._primary.received, WorkerId(1), self._slot, message)
        return True

    def wait_writable(self, callback: Callable[[], None]) -> None:
        pass  # nobody has to wait

    def close(self) -> None:
        self._primary.close()

    def _to_worker(self, worker: WorkerId, message: Deliver | Answered) -> bool:
        self._runtime.tells.received(message)
        return True


class AppClient:
    """An application that runs for as long as the context lasts, ``on_start`` and ``on_stop`` included.

    ::

        async with AppClient(app) as client, client.connect("/ws/lobby", session={"name": "Ada"}) as ada:
            await ada.send({"text": "hello"})
            assert (await ada.receive())["text"] == "hello"

    `redis_url`: the Redis or Valkey of `App.redis`; sessions and rooms stay in memory. `settings` are those of
    `stickygw.config.settings.Settings` by name: ``max_message=1000``. With ``keys=["path:/match/{id}"]`` connections
    have their `Connection.key`.
    """

    def __init__(
        self, app: App, *, slot: int = 0, workers: int = 1, redis_url: str | None = None, **settings: Any
    ) -> None:
        self._app = app
        self._identity = Identity(Slot(slot), 1, workers, GatewayId("00000000"))
        self._settings = Settings(**settings)
        self._own_redis = OwnRedis(redis_url, prefix=self._settings.redis.prefix, timeout=self._settings.redis.timeout)
        self._ids = itertools.count(1)
        self._serving: set[asyncio.Task[None]] = set()
        self.store = MemorySessionStore()
        self.counters = Counters()

    async def __aenter__(self) -> Self:
        hub = Hub(self.counters)
        self.sessions = Sessions(
            self.store,
            ttl=self._settings.session.ttl,
            lifetime=self._settings.session.lifetime,
            is_tracked=lambda: True,
            counters=self.counters,
            queue_writes=self._settings.session.store_down == "queue",
        )
        self.store.on_changed.append(self.sessions.invalidated)
        self.runtime = Runtime(
            self._app,
            identity=self._identity,
            settings=self._settings,
            sessions=self.sessions,
            hub=hub,
            bridge=MemoryBridge(
                MemoryBus(),
                on_publication=lambda address, publication: self.runtime.audience.received(address, publication),
            ),
            cookie_keys=_KEYS,
            counters=self.counters,
            own_redis=self._own_redis,
        )
        self._primary = _Alone(self.runtime)
        self.sessions.start()
        await self.runtime.bridge.start()
        await self.runtime.start()
        self._endpoint = Endpoint(self.runtime)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._serving:
            task.cancel()  # of clients that never sent a whole head
        try:
            async with asyncio.timeout(DEADLINE):
                await self.runtime.stop(code=1001, reason="the test is over", close_within=1.0)
        except TimeoutError:
            raise AssertionError(f"the application does not stop: {self.runtime.running()}") from None
        finally:
            self._primary.close()
            await self.runtime.bridge.stop()
            await self.sessions.stop()
            await self._own_redis.close()

    @asynccontextmanager
    async def connect(
        self,
        path: str,
        *,
        session: Mapping[str, Any] | SessionId | None = None,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        client: str = "127.0.0.1",
        max_size: int | None = 1 << 20,
    ) -> AsyncIterator[TestConnection]:
        """Open a WebSocket; it is closed with 1000 when the context ends.

        `session`: the fields of a new visitor's session, or the `session_id` of an earlier connection to be the same
        visitor. `max_size` bounds incoming messages in bytes. Raises `HandshakeRefused`.
        """
        session_id = await self._session_id(session)
        sock = await self._serve(session_id, client)
        try:
            connection = await connect(
                f"ws://{HOST}{path}",
                sock=sock,
                additional_headers=headers,
                subprotocols=[Subprotocol(name) for name in subprotocols] or None,
                compression=None,
                open_timeout=DEADLINE,
                max_size=max_size,
                proxy=None,
            )
        except InvalidStatus as refused:
            body = refused.response.body or b""
            raise HandshakeRefused(
                refused.response.status_code, bytes(body).decode(), refused.response.headers
            ) from None
        client_end = TestConnection(self._app, connection, session_id)
        try:
            yield client_end
        finally:
            await client_end.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        session: Mapping[str, Any] | SessionId | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        client: str = "127.0.0.1",
        timeout: float = DEADLINE,
    ) -> TestAnswer:
        """The answer to one HTTP request. `session`: as for `connect`. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            sock = await self._serve(await self._session_id(session), client)
            return await exchange(sock, method, path, headers=headers or {}, body=body)

    async def session(self, id: SessionId) -> dict[str, Any]:
        """What is stored of a session now."""
        session = await self.sessions.open(id)
        try:
            return dict(session)
        finally:
            self.sessions.release(session)

    async def _session_id(self, session: Mapping[str, Any] | SessionId | None) -> SessionId:
        if isinstance(session, str):
            return session
        new = await self.sessions.open(None)
        try:
            new.update(session or {})
            await new.flush()
        finally:
            self.sessions.release(new)
        return new.id

    async def _serve(self, session: SessionId, client: str) -> socket.socket:
        """The client's end of a connection that the application serves."""
        ours, theirs = socket.socketpair()
        offer = Offer(HandOverId(next(self._ids)), session, 0, None, client, 0, False, "test")
        task = asyncio.create_task(self._take(offer, theirs))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return ours

    async def _take(self, offer: Offer, sock: socket.socket) -> None:
        """What primary and intake do: wait for the head, then give the connection to the endpoint."""
        sock.setblocking(False)
        data = b""
        while (verdict := examine(data)) is NEED_MORE:
            more = await self.runtime.loop.sock_recv(sock, 65536)
            if not more:
                sock.close()
                return
            data += more
        if not isinstance(verdict, Head):
            sock.close()
            raise AssertionError(f"the gate refuses this request: {verdict}")
        transport = SocketTransport(sock, self.runtime.loop, self.runtime.flusher)
        offer = replace(offer, key=self._key_of(verdict, offer.host))
        arrival = Arrival(offer, verdict, data[verdict.size :], transport, lambda: None)
        self.runtime.spawn(self._endpoint.serve(arrival))

    def _key_of(self, head: Head, client: str) -> bytes | None:
        """The affinity key that decides, as for a client that has its cookie."""
        for key in map(parse_key, self.runtime.settings.keys):
            found = key.of(head, client)
            if found is not None or key.is_own_cookie:
                return found
        return None
