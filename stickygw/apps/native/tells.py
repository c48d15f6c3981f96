"""One worker's side of messages between processes: `Tells` sends, and calls the ``on_tell`` handlers.

They go through the primary (`stickygw.primary.tells`), so no Redis is needed. What is told may be lost, when a queue is
full or a worker ends; it is never doubled. What is asked is answered, or fails with `TellError`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

from stickygw.apps.native.awaitables import DONE, NEXT_TURN, Later
from stickygw.errors import TellError
from stickygw.observability.counters import Counters
from stickygw.observability.drops import Drops
from stickygw.wire.link import Answer, Answered, Deliver, Tell
from stickygw.wire.outbox import Outbox, WaitingMessages
from stickygw.wire.tell import LONGEST_ASK_SECONDS, check_name, pack, unpack

log = logging.getLogger("stickygw.app")

MAX_ASKED = 1024
"""Questions of this worker that may be without an answer at the same time."""

MESSAGES_PER_TURN = 64
"""Messages of one sender that are handled before others have their turn."""

MAX_REPORT_KEYS = 32
MAX_REPORT_BYTES = 4096
"""Bounds of what ``App.report`` says; it goes with every heartbeat."""

_EVERYONE = "all"
_LEAST_LOADED = "least_loaded"


class LinkFace(Protocol):
    """What is needed of the link to the primary."""

    def send(self, message: Tell | Answer) -> bool:
        """Send it now; False: the link is full or gone."""

    def wait_writable(self, callback: Callable[[], None]) -> None:
        """Call back once, when a message can be sent again."""


class Tells:
    """Messages to and from other workers. `handlers` are the application's, by name; `spawn` runs them.

    Until `connect`, and after `disconnect`, there is nobody to tell: `TellError`.
    """

    def __init__(
        self,
        handlers: Mapping[str, Callable[[Any], Any]],
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        counters: Counters,
    ) -> None:
        self.report: dict[str, Any] = {}
        """What the application says of itself with ``App.report``."""
        self._handlers = handlers
        self._spawn = spawn
        self._counters = counters
        self._drops = Drops("tells_dropped", counters=counters, log=log)
        self._loop = asyncio.get_running_loop()
        self._outbox: Outbox[Tell | Answer] | None = None
        self._sent = asyncio.Event()  # set, and replaced, when messages that waited have gone
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._inboxes: dict[int | str, WaitingMessages[Deliver]] = {}
        self._is_stopping = False

    # --- life ---------------------------------------------------------------------------------------------------------

    def connect(self, link: LinkFace) -> None:
        """From now on messages go out on `link`; what comes in is given to `received`."""
        self._outbox = Outbox(send=link.send, wait_writable=link.wait_writable, on_sent=self._tell_sent)

    def stop(self) -> None:
        """Take nothing more: what is asked and waits is refused. What was told and waits is still handled."""
        self._is_stopping = True
        for inbox in self._inboxes.values():
            for message in inbox.take_all():
                if message.ticket:
                    self._refuse(message, "stopping", "the worker stops")
                else:
                    inbox.add(message)

    def disconnect(self) -> None:
        """The link is gone: what waits is lost, what is asked fails. Idempotent."""
        if self._outbox is not None:
            self._outbox.clear()
            self._outbox = None
        self._tell_sent()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(TellError("the link to the primary is gone"))

    # --- out ----------------------------------------------------------------------------------------------------------

    def tell(self, name: str, payload: Any, to: int | str) -> Awaitable[None]:
        """See ``App.tell``."""
        self._post(Tell(0, _target(to), check_name(name), pack(payload)))
        assert self._outbox is not None, "_post raises without one"
        posted = self._outbox.posted
        return DONE if self._outbox.sent == posted else Later(partial(self._wait_sent, posted))

    async def ask(self, name: str, payload: Any, to: int | str, timeout: float) -> Any:
        """See ``App.ask``."""
        if _target(to) == _EVERYONE:
            raise ValueError("one worker is asked: to=slot or 'least_loaded'")
        if not 0 < timeout <= LONGEST_ASK_SECONDS:
            raise ValueError(f"timeout is more than 0 and at most {LONGEST_ASK_SECONDS:g} seconds, not {timeout!r}")
        if len(self._asked) >= MAX_ASKED:
            raise TellError(f"{name!r}: {MAX_ASKED} questions of this worker are without an answer already")
        question = Tell(next(self._ids), to, check_name(name), pack(payload))
        answer = self._asked[question.id] = self._loop.create_future()
        try:
            self._post(question)
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise TellError(f"{name!r}: no answer from {_shown(to)} within {timeout:g} s") from None
        finally:
            del self._asked[question.id]

    def say(self, values: Mapping[str, Any]) -> None:
        """See ``App.report``."""
        report = {key: value for key, value in {**self.report, **values}.items() if value is not None}
        if len(report) > MAX_REPORT_KEYS:
            raise ValueError(f"a report of {len(report)} keys; at most {MAX_REPORT_KEYS} are sent")
        # A copy: what the application changes later in a list of it would go by the bounds.
        self.report = unpack(pack(report, what="report", most=MAX_REPORT_BYTES))

    def _post(self, message: Tell) -> None:
        if self._outbox is None:
            raise TellError(f"{message.name!r}: there is no primary to carry it")
        if not self._outbox.post(message):
            self._drops.add("link_full", f"{message.name!r} was not sent: the link to the primary is full")
            raise TellError(f"{message.name!r}: too many messages wait for the primary already")

    async def _wait_sent(self, posted: int) -> None:
        """Return when all that was posted up to `posted` went out, or is lost with the link, which ends this wait."""
        while self._outbox is not None and self._outbox.sent < posted:
            await self._sent.wait()

    def _tell_sent(self) -> None:
        self._sent.set()
        self._sent = asyncio.Event()

    # --- in -----------------------------------------------------------------------------------------------------------

    def received(self, message: Deliver | Answered) -> None:
        """What came on the link."""
        if isinstance(message, Answered):
            self._answered(message)
        elif self._is_stopping:
            self._refuse(message, "stopping", "the worker stops")
        elif message.name not in self._handlers:
            self._refuse(message, "no_handler", f"no on_tell({message.name!r}) there", level=logging.DEBUG)
        elif message.sender in self._inboxes:
            if not self._inboxes[message.sender].add(message):
                self._refuse(message, "inbox_full", "too many messages wait there already")
        else:
            inbox = self._inboxes[message.sender] = WaitingMessages()
            inbox.add(message)
            self._spawn(self._handle_all(message.sender, inbox))

    def _answered(self, message: Answered) -> None:
        future = self._asked.get(message.id)
        if future is None or future.done():
            return  # too late: nobody waits any more
        if message.error:
            future.set_exception(TellError(message.error))
            return
        try:
            future.set_result(unpack(message.payload))
        except ValueError as error:
            future.set_exception(TellError(f"the answer cannot be read: {error}"))

    async def _handle_all(self, sender: int | str, inbox: WaitingMessages[Deliver]) -> None:
        """One sender's messages, in order, one at a time, until none waits."""
        handled = 0
        try:
            while inbox:
                await self._handle(inbox.take())
                handled += 1
                if handled % MESSAGES_PER_TURN == 0:
                    await NEXT_TURN
        finally:
            del self._inboxes[sender]

    async def _handle(self, message: Deliver) -> None:
        try:
            payload = unpack(message.payload)
        except ValueError as error:
            self._refuse(message, "unreadable", f"its payload is unreadable there: {error}")
            return
        try:
            result = self._handlers[message.name](payload)
            if inspect.isawaitable(result):
                result = await result
            answer = pack(result, what="answer") if message.ticket else b""
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # it is meant for us
            self._counters.add("handler_errors", type(error).__name__)
            log.error("on_tell(%r) raised on a message from %s", message.name, _shown(message.sender), exc_info=error)
            self._answer(message, error=f"{message.name!r}: the handler raised {type(error).__name__}")
            return
        self._answer(message, answer)

    def _refuse(self, message: Deliver, why: str, text: str, *, level: int = logging.WARNING) -> None:
        self._drops.add(why, f"{message.name!r} from {_shown(message.sender)} was dropped: {text}", level=level)
        self._answer(message, error=f"{message.name!r}: {text}")

    def _answer(self, message: Deliver, payload: bytes = b"", *, error: str = "") -> None:
        if not message.ticket or self._outbox is None:
            return
        if not self._outbox.post(Answer(message.ticket, payload, error)):
            self._drops.add("link_full", f"the answer to {message.name!r} was not sent: the link is full")


def _target(to: int | str) -> int | str:
    """Whom a message is for. Raises `ValueError`."""
    is_slot = isinstance(to, int) and not isinstance(to, bool) and to >= 0
    if not is_slot and to not in (_EVERYONE, _LEAST_LOADED):
        raise ValueError(f"to is 'all', 'least_loaded' or a slot from 0, not {to!r}")
    return to


def _shown(who: int | str) -> str:
    return f"slot {who}" if isinstance(who, int) else f"the {who} worker" if who == _LEAST_LOADED else f"a {who}"
