"""`App`: an application of event handlers, served by stickygw's workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from stickygw.apps import current
from stickygw.apps.kinds import why_not_asgi
from stickygw.apps.native.codec import CodecName, codec_named
from stickygw.apps.native.handlers import Function, Handler, Handlers
from stickygw.apps.native.in_gateway import InGateway
from stickygw.apps.native.patterns import PathPattern
from stickygw.apps.native.room import Room
from stickygw.apps.native.room_rules import RoomRules
from stickygw.apps.native.schedule import Job
from stickygw.bridge.addresses import check_room
from stickygw.wire.addressee import addressee
from stickygw.wire.tell import OWN_NAMES, check_name

if TYPE_CHECKING:
    from stickygw.apps.native.runtime import Runtime
    from stickygw.bridge.hub import Member
    from stickygw.types import SlowConsumer

F = TypeVar("F", bound=Function)
Result = TypeVar("Result")


class App(InGateway):
    """A WebSocket application.

    `codec` says what a message is to its handlers: as it came (str or bytes), "json" or "msgpack". `static` is a folder
    whose files answer plain GET requests, ``index.html`` for its folders. `http` is an ASGI application that has all
    other requests, and the WebSockets of paths that no handler here serves. `subprotocols` are those it speaks, the
    preferred first.

    Handlers are ``def`` or ``async def``. Both run on the event loop and must not block it: `offload` what takes long.
    """

    def __init__(
        self,
        *,
        codec: CodecName | None = None,
        static: str | Path | None = None,
        http: Callable[..., Any] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> None:
        self.codec = codec_named(codec)
        self.static = Path(static) if static is not None else None
        if self.static is not None and not self.static.is_dir():
            raise ValueError(f"static={str(static)!r} is not a folder")
        if http is not None and (why := why_not_asgi(http)):
            raise TypeError(f"http={http!r} {why}")
        self.http = http
        self.subprotocols = tuple(subprotocols)
        self.handlers = Handlers()
        self.room_rules = RoomRules()
        self._runtime: Runtime | None = None

    # Life

    def on_start(self, function: F) -> F:
        """``on_start()`` runs once in each worker, before it takes connections."""
        self.handlers.start.append(function)
        return function

    def on_stop(self, function: F) -> F:
        """``on_stop()`` runs once in each worker, after its last connection ended."""
        self.handlers.stop.append(function)
        return function

    # Connections

    def on_handshake(self, function: F) -> F:
        """``on_handshake(request, session)`` runs before a WebSocket opens. It may raise `stickygw.Refuse`."""
        self.handlers.handshake.append(function)
        return function

    @overload
    def on_connect(self, pattern: F) -> F: ...
    @overload
    def on_connect(self, pattern: str) -> Callable[[F], F]: ...
    def on_connect(self, pattern: Any) -> Any:
        """``on_connect(conn, **parts)`` runs when a WebSocket is open, before its first message is handled.

        With a path pattern, ``@app.on_connect("/ws/{room}")``, it serves the paths that match and gets their parts.
        """
        return self._register(self.handlers.connect, pattern)

    @overload
    def on_message(self, pattern: F) -> F: ...
    @overload
    def on_message(self, pattern: str) -> Callable[[F], F]: ...
    def on_message(self, pattern: Any) -> Any:
        """``on_message(conn, message, **parts)`` handles one message. A connection's messages come in order, one at a
        time: the next waits until this handler is done, and when some wait the client is no longer read."""
        return self._register(self.handlers.message, pattern)

    @overload
    def on_disconnect(self, pattern: F) -> F: ...
    @overload
    def on_disconnect(self, pattern: str) -> Callable[[F], F]: ...
    def on_disconnect(self, pattern: Any) -> Any:
        """``on_disconnect(conn, code, reason, **parts)`` runs exactly once, last; ``conn.rooms`` are still told."""
        return self._register(self.handlers.disconnect, pattern)

    @overload
    def handler(self, pattern: F) -> F: ...
    @overload
    def handler(self, pattern: str) -> Callable[[F], F]: ...
    def handler(self, pattern: Any) -> Any:
        """``async handler(conn, **parts)`` is one coroutine for a connection's whole life, as with the `websockets`
        library: ``async for message in conn``. When it returns, the connection is closed with 1000."""
        return self._register(self.handlers.coroutine, pattern)

    def on_error(self, function: F) -> F:
        """``on_error(conn, error)`` hears of an exception in a handler; the connection is closed with 1011 after it."""
        self.handlers.error.append(function)
        return function

    def on_move_out(self, function: F) -> F:
        """``on_move_out(conn)`` runs before a connection goes to its slot's next worker, when no handler of it does.

        What it returns goes to ``on_move_in``: a value such as `Connection.state` can have. If it raises, or takes
        longer than `move_grace`, the connection does not move, and is closed with 1012.
        """
        self.handlers.move_out.append(function)
        return function

    def on_move_in(self, function: F) -> F:
        """``on_move_in(conn, value)`` runs in the next worker before any other handler. `value` is what ``on_move_out``
        has returned; of several, what the one registered at the same place has. None: nothing."""
        self.handlers.move_in.append(function)
        return function

    def on_key_out(self, function: F) -> F:
        """``on_key_out(key)`` runs before the connections with an affinity key (`Connection.key`) go to another worker,
        when no handler of theirs does, and until `key_linger` seconds after the last one's end without any: it gives
        away what the application keeps for `key`, a value such as `Connection.state` can have, at most 16 MiB packed.
        If it raises, or takes longer than `move_grace`, the key stays, and its connections are closed with 1012."""
        self.handlers.key_out.append(function)
        return function

    def on_key_in(self, function: F) -> F:
        """``on_key_in(key, value)`` undoes ``on_key_out``: in the next worker, before any handler of that key's
        connections, moved or new, and in the old one if the key could not go. `value` is what that has returned; of
        several, the one registered at the same place. If it raises, or takes too long, they are closed with 1012."""
        self.handlers.key_in.append(function)
        return function

    def on_gap(self, function: F) -> F:
        """``on_gap(room)``: messages to a room with members here may have been missed, because Redis was away or did
        not keep up. Called once for each gap, one room after the other."""
        self.handlers.gap.append(function)
        return function

    def every(
        self, *, seconds: float, once: Literal["worker", "machine", "cluster"] = "worker", name: str | None = None
    ) -> Callable[[F], F]:
        """The function runs every so many `seconds`: in each worker, counted from its start, or `once` in all workers
        of a "machine" (a gateway), or of all gateways that share a store and a prefix ("cluster"): then at multiples of
        `seconds` since 1970, UTC. If it has a parameter without a default, it is given a `stickygw.Tick`: the number of
        its deadline, how late it begins, and how many were left out. Deadlines do not drift.

        A tick that comes while the last one still runs is left out, in whatever worker that is; and so is one that
        comes while the loop is blocked, or that runs once for many while Redis is away. If a worker dies in a job that
        runs once for many, it is not run again for up to 15 s; if one cannot reach Redis for as long while it runs, or
        blocks its loop, another begins it beside. What it raises is logged.

        Many workers know a job by `name`, else by its function's module and qualified name. Raises `ValueError` for
        less than 0.01 s, or more than 31 days, and with "machine" or "cluster" for less than 0.05 s and for a name that
        is taken or none; `TypeError` for a function that wants more than a tick.
        """

        def register(function: F) -> F:
            job = Job(function, seconds, once, name)
            job.check_among(self.handlers.every)
            self.handlers.every.append(job)
            return function

        return register

    def configure_rooms(self, pattern: str, *, slow_consumer: SlowConsumer) -> None:
        """Say for all rooms whose name is `pattern`, with ``*`` for any characters, what the setting ``slow_consumer``
        says for the others: what happens to members that do not keep up. The first pattern that fits a room decides.

        For when the application is made: a room keeps what it got with its first member. Raises `ValueError` for any
        other value than "disconnect", "drop_oldest" and "drop_newest".
        """
        self.room_rules.add(pattern, slow_consumer=slow_consumer)

    # Messages between workers

    def on_tell(self, name: str) -> Callable[[F], F]:
        """``on_tell(name)``: the function is called with the payload of each message of that name, from `tell`, `ask`
        or the command line. What it returns is the answer to who asked.

        The messages of one sender come in order, one at a time; those of different senders side by side. Raises
        `ValueError` for a name that is taken, the gateway's own or none.
        """
        if check_name(name).startswith(OWN_NAMES):
            raise ValueError(f"on_tell({name!r}): names that begin with {OWN_NAMES!r} are the gateway's own")
        if name in self.handlers.tell:
            raise ValueError(f"on_tell({name!r}) is registered already; each name has one function")

        def register(function: F) -> F:
            self.handlers.tell[name] = function
            return function

        return register

    def _register(self, handlers: list[Handler], pattern: str | Function) -> Any:
        if callable(pattern):
            handlers.append(Handler.of(pattern, None))
            return pattern
        compiled = PathPattern(pattern)

        def register(function: F) -> F:
            handlers.append(Handler.of(function, compiled))
            return function

        return register

    # In a running worker

    def publish(self, room: str | Collection[str], message: Any, *, exclude: Member | None = None) -> Awaitable[None]:
        """Send `message` to every member of `room`, or of several, on every worker and machine, but for `exclude`.

        A member of two of them gets it once. It acts when called; awaiting the result is for back-pressure only.
        Members in this worker get it even while Redis is away. Raises `RoomNameError`.
        """
        return self.runtime.audience.publish(room, self.codec.encode(message), exclude)

    def room(self, name: str) -> Room:
        """The room of that name, to do more with. Raises `RoomNameError`."""
        return Room(self, check_room(name))

    def send_to_user(self, user: str, message: Any) -> Awaitable[None]:
        """Send `message` to every connection that is identified as `user` (`Connection.identify`), on every worker and
        machine. Raises `RoomNameError` for what no user can be called."""
        return self.runtime.audience.send_to_user(user, self.codec.encode(message))

    def send_to_session(self, session: str, message: Any) -> Awaitable[None]:
        """Send `message` to every WebSocket of the session with that id, on every worker and machine.

        Each worker looks at each of its connections for it: for what is sent often, use a room, or `send_to_user`.
        Raises `ValueError` for what is no id: nothing, or over 248 bytes.
        """
        return self.runtime.audience.send_to(addressee("session", session), self.codec.encode(message))

    def disconnect(
        self,
        *,
        session: str | None = None,
        user: str | None = None,
        connection: str | None = None,
        code: int = 1008,
        reason: str = "",
    ) -> Awaitable[None]:
        """Close all WebSockets of a session or a user, or one connection by its id, on whatever worker and machine.

        Raises `ValueError` unless one of the three is given, for what is no id, and for a code or reason that no close
        frame may carry; `RoomNameError` for what no user can be called.
        """
        if [session, user, connection].count(None) != 2:
            raise ValueError("disconnect takes one of session=, user= and connection=")
        if session is not None:
            to = addressee("session", session)
        else:
            to = f"user:{user}" if connection is None else addressee("connection", connection)
        return self.runtime.audience.disconnect(to, code, reason)

    def tell(
        self, name: str, payload: Any = None, *, to: int | Literal["all", "least_loaded"] = "all"
    ) -> Awaitable[None]:
        """Send `payload` to the ``on_tell(name)`` handlers of other workers: of all, this one included, of a slot's,
        or of the one with the least to do.

        It acts when called; awaiting the result is for back-pressure only. `payload` is of msgpack's types, at most
        64 KiB packed. A message that does not get through is counted and logged where it ends; nothing tells the
        sender. Raises `TellError` when too many wait to leave this worker, `ValueError` for what cannot be sent.
        """
        return self.runtime.tells.tell(name, payload, to)

    async def ask(
        self, name: str, payload: Any = None, *, to: int | Literal["least_loaded"], timeout: float = 10.0
    ) -> Any:
        """What the ``on_tell(name)`` handler of another worker, or of this one, returns for `payload`.

        Raises `TellError` when there is no such worker or handler, when the handler raised, or when no answer came
        within `timeout` seconds (at most 60). A handler that asks its own sender back waits for itself.
        """
        return await self.runtime.tells.ask(name, payload, to, timeout)

    def report(self, **values: Any) -> None:
        """Show `values` in ``stickygw status``, beside those said before; None takes one away.

        They are of msgpack's types and go out with the next heartbeat, within a second. Raises `ValueError` for more
        than 32 of them, or 4 KiB packed; then nothing has changed.
        """
        self.runtime.tells.say(values)

    async def offload(
        self,
        function: Callable[..., Result],
        *args: Any,
        kind: Literal["process", "thread"] = "process",
        timeout: float | None = None,
    ) -> Result:
        """``function(*args)``, called beside the event loop, which serves the other connections meanwhile.

        In a process: for Python code that computes. It imports `function` by its name, and `args` and the result are
        copied (pickled). In a thread: for calls that wait, or that release the GIL. Of each kind `offload_processes`
        run at the same time, the others wait in order.

        Raises what the function raises; `OffloadFull` when `offload_queue` calls wait or run already; `TypeError` for
        what cannot go to another process; `BrokenProcessPool` when its process was killed; `TimeoutError` after
        `timeout` seconds. A call that is given up while it waits never begins; one that runs goes on, and what it gives
        is dropped.
        """
        result: Result = await self.runtime.offload.run(function, args, kind, timeout)
        return result

    @property
    def slot(self) -> int:
        """This worker's number, from 0."""
        return self.runtime.identity.slot

    @property
    def workers(self) -> int:
        """How many slots the gateway has."""
        return self.runtime.identity.workers

    @property
    def generation(self) -> int:
        """Which generation of the code this worker runs."""
        return self.runtime.identity.generation

    @property
    def runtime(self) -> Runtime:
        """What runs this application. Raises `RuntimeError` outside a worker."""
        if self._runtime is None:
            raise RuntimeError("the application is not running: this works in its handlers, from on_start to on_stop")
        return self._runtime

    def run_with(self, runtime: Runtime | None) -> None:
        """For the worker: from now on `runtime` runs this application, or nothing does."""
        self._runtime = runtime
        if runtime is None:
            current.ended(self)
        else:
            current.started(self)
