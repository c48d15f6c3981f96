"""Messages between processes, as one worker sends and handles them; `AppClient` is its primary, or the test is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw import App, TellError
from stickygw.apps.native import tells
from stickygw.apps.native.tells import Tells
from stickygw.observability.counters import Counters
from stickygw.testing import AppClient
from stickygw.wire import outbox
from stickygw.wire.link import Answer, Answered, Deliver, Tell
from stickygw.wire.tell import MAX_PAYLOAD_BYTES, OWN_NAMES, pack, unpack

StartClient = Callable[..., Awaitable[AppClient]]


class FakeLink:
    """A link to a primary, which takes as many messages as there is `room` for."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.sent: list[Tell | Answer] = []
        self._callbacks: list[Callable[[], None]] = []

    def send(self, message: Tell | Answer) -> bool:
        if len(self.sent) >= self.room:
            return False
        self.sent.append(message)
        return True

    def wait_writable(self, callback: Callable[[], None]) -> None:
        assert not self._callbacks, "one at a time"
        self._callbacks.append(callback)

    def make_room(self, room: int) -> None:
        self.room = len(self.sent) + room
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Worker:
    """`Tells` with handlers, a link and tasks of its own."""

    def __init__(self, *, room: int = 1_000_000, **handlers: Callable[[Any], Any]) -> None:
        self.counters = Counters()
        self.link = FakeLink(room)
        self.tasks: set[asyncio.Task[None]] = set()
        self.tells = Tells(handlers, spawn=self._spawn, counters=self.counters)
        self.tells.connect(self.link)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def receive(self, name: str, payload: Any = None, *, ticket: int = 0, sender: int | str = 0) -> None:
        self.tells.received(Deliver(ticket, sender, name, pack(payload)))

    async def idle(self) -> None:
        await wait_until(lambda: not self.tasks)

    @property
    def answers(self) -> list[tuple[int, Any, str]]:
        """Ticket, value and error of each answer that went out."""
        sent = (message for message in self.link.sent if isinstance(message, Answer))
        return [(answer.ticket, unpack(answer.payload) if answer.payload else None, answer.error) for answer in sent]


# In an application


@pytest.mark.parametrize("to", ["all", "least_loaded", 3])
async def test_what_is_told_reaches_the_handler_in_a_later_turn(app_client: StartClient, to: Any) -> None:
    app, told = App(), []
    app.on_tell("news")(told.append)
    await app_client(app, slot=3, workers=4)
    app.tell("news", {"by": [1, b"2", None], 3: 4.5}, to=to)
    await app.tell("news", to=to)
    assert told == []
    await wait_until(lambda: told == [{"by": [1, b"2", None], 3: 4.5}, None])


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_the_handler_returns_is_the_answer(app_client: StartClient, is_async: bool) -> None:
    app = App()

    @app.on_tell("double")
    def double(number):
        return number * 2

    @app.on_tell("double later")
    async def double_later(number):
        await asyncio.sleep(0)
        return number * 2

    await app_client(app)
    assert await app.ask("double later" if is_async else "double", 21, to="least_loaded") == 42


async def test_an_ask_that_is_not_answered_says_why(app_client: StartClient, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.on_tell("fail")
    def fail(payload):
        raise LookupError("on purpose")

    @app.on_tell("unsendable")
    async def unsendable(payload):
        return object()

    app.on_tell("never")(lambda payload: asyncio.Event().wait())

    @app.on_tell("cancelled")
    async def cancelled(payload):
        raise asyncio.CancelledError

    client = await app_client(app)
    with pytest.raises(TellError, match="no on_tell"):
        await app.ask("nobody", to=0)
    with pytest.raises(TellError, match=r"'fail': the handler raised LookupError$"):
        await app.ask("fail", to=0)
    with pytest.raises(TellError, match="raised ValueError"):
        await app.ask("unsendable", to=0)
    with pytest.raises(TellError, match="raised CancelledError"):
        await app.ask("cancelled", to=0)
    with pytest.raises(TellError, match="slot 1 has no worker"):
        await app.ask("fail", to=1)
    with pytest.raises(TellError, match=r"'never': no answer from slot 0 within 0.01 s"):
        await app.ask("never", to=0, timeout=0.01)
    client.runtime.tells.stop()
    with pytest.raises(TellError, match="the worker stops"):
        await app.ask("fail", to=0)
    assert "on purpose" in caplog.text, "with its traceback"
    assert client.counters.value("handler_errors", "LookupError") == 1
    assert client.counters.value("tells_dropped", "no_handler") == 1
    for task in client.runtime.tasks:
        task.cancel()


@pytest.mark.parametrize(
    "payload",
    [object(), {"set": {1}}, 1 << 64, {(1, 2): 3}, "\ud800", b"x" * MAX_PAYLOAD_BYTES],
    ids=["object", "set", "65 bits", "tuple key", "surrogate", "too large"],
)
async def test_a_payload_that_cannot_be_sent_is_a_value_error(app_client: StartClient, payload: Any) -> None:
    app = App()
    await app_client(app)
    with pytest.raises(ValueError, match="payload"):
        app.tell("x", payload)


async def test_names_targets_and_timeouts_are_checked(app_client: StartClient) -> None:
    app = App()
    app.on_tell("x" * 128)(lambda payload: None)
    await app_client(app)
    for name in ("", "x" * 129, "\ud800", None):
        with pytest.raises(ValueError, match="name"):
            app.tell(name)
        with pytest.raises(ValueError, match="name"):
            app.on_tell(name)
    with pytest.raises(ValueError, match="registered already"):
        app.on_tell("x" * 128)
    with pytest.raises(ValueError, match="the gateway's own"):
        app.on_tell(f"{OWN_NAMES}anything")
    for to in ("some", -1, True, None):
        with pytest.raises(ValueError, match="to is"):
            app.tell("x", to=to)
    with pytest.raises(ValueError, match="one worker is asked"):
        await app.ask("x", to="all")
    for timeout in (0, -1, 61, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            await app.ask("x", to=0, timeout=timeout)


async def test_a_report_changes_by_key_and_keeps_its_bounds(app_client: StartClient) -> None:
    app = App()
    client = await app_client(app)
    jobs = [1, 2]
    app.report(jobs=jobs, model="a")
    jobs.append(3)
    app.report(model=None, ready=True)
    assert client.runtime.tells.report == {"jobs": [1, 2], "ready": True}
    with pytest.raises(ValueError, match="32 are sent"):
        app.report(**{f"k{number}": number for number in range(31)})
    with pytest.raises(ValueError, match="4096 are sent"):
        app.report(text="x" * 4096)
    with pytest.raises(ValueError, match="report"):
        app.report(app=app)
    assert client.runtime.tells.report == {"jobs": [1, 2], "ready": True}


async def test_the_stop_waits_for_running_handlers_and_for_what_was_told_before() -> None:
    app, done, may_go_on = App(), [], asyncio.Event()

    @app.on_tell("job")
    async def job(number):
        await may_go_on.wait()
        done.append(number)

    client = AppClient(app)
    await client.__aenter__()
    app.tell("job", 1)
    app.tell("job", 2)
    asked = asyncio.ensure_future(app.ask("job", 3, to=0))
    await wait_until(lambda: "job" in client.runtime.running())
    stopping = asyncio.ensure_future(client.__aexit__(None, None, None))
    with pytest.raises(TellError, match="the worker stops"):
        await asked
    assert not stopping.done()
    may_go_on.set()
    await stopping
    assert done == [1, 2]
    with pytest.raises(RuntimeError, match="not running"):
        app.tell("job", 4)


async def test_the_end_of_the_application_ends_what_its_own_tasks_ask() -> None:
    app = App()
    async with AppClient(app) as client:
        client.runtime.tells.connect(FakeLink())  # nobody answers there
        asking = asyncio.ensure_future(app.ask("n", to=1))
        await asyncio.sleep(0)
    with pytest.raises(TellError, match="gone"):
        await asking


# One worker and its link


async def test_one_senders_messages_come_in_order_one_at_a_time_and_different_senders_side_by_side() -> None:
    running: list[str] = []
    done: list[str] = []
    gates = {name: asyncio.Event() for name in ("a1", "a2", "b1")}

    async def step(name: str) -> None:
        running.append(name)
        await gates[name].wait()
        running.remove(name)
        done.append(name)

    worker = Worker(step=step)
    worker.receive("step", "a1", sender=0)
    worker.receive("step", "a2", sender=0)
    worker.receive("step", "b1", sender="command")
    await wait_until(lambda: running == ["a1", "b1"])
    gates["b1"].set()
    gates["a2"].set()
    await wait_until(lambda: done == ["b1"])
    assert running == ["a1"]
    gates["a1"].set()
    await worker.idle()
    assert done == ["b1", "a1", "a2"]


async def test_a_full_inbox_refuses_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_MESSAGES", 2)
    gate, done = asyncio.Event(), []

    async def job(number: int) -> None:
        await gate.wait()
        done.append(number)

    worker = Worker(job=job)
    worker.receive("job", 0)
    await wait_until(lambda: worker.tasks)
    await asyncio.sleep(0)
    for number in (1, 2, 3):
        worker.receive("job", number)
    worker.receive("job", 4, ticket=9)
    worker.receive("job", 5, sender=1)
    assert worker.answers == [(9, None, "'job': too many messages wait there already")]
    gate.set()
    await worker.idle()
    assert sorted(done) == [0, 1, 2, 5]
    assert worker.counters.value("tells_dropped", "inbox_full") == 2


async def test_while_the_link_is_full_messages_wait_in_order_and_more_are_a_tell_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_MESSAGES", 2)
    worker = Worker(room=1)
    await worker.tells.tell("n", 0, "all")
    waits = [asyncio.ensure_future(_awaited(worker.tells.tell("n", number, "all"))) for number in (1, 2)]
    with pytest.raises(TellError, match="too many messages wait"):
        worker.tells.tell("n", 3, "all")
    with pytest.raises(TellError, match="too many messages wait"):
        await worker.tells.ask("n", 4, 0, 1.0)
    await asyncio.sleep(0)  # both wait
    worker.link.make_room(1)
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert [wait.done() for wait in waits] == [True, False]
    worker.link.make_room(5)
    await asyncio.gather(*waits)
    await worker.tells.tell("n", 5, "all")
    assert [unpack(message.payload) for message in worker.link.sent] == [0, 1, 2, 5]
    assert worker.counters.value("tells_dropped", "link_full") == 2


async def test_a_link_that_is_gone_ends_every_wait() -> None:
    worker = Worker(room=1)
    asking = asyncio.ensure_future(worker.tells.ask("n", 0, 0, 60.0))
    await wait_until(lambda: worker.link.sent)
    waiting = asyncio.ensure_future(_awaited(worker.tells.tell("n", 1, "all")))
    await asyncio.sleep(0)
    worker.tells.disconnect()
    with pytest.raises(TellError, match="gone"):
        await asking
    await waiting
    with pytest.raises(TellError, match="no primary"):
        worker.tells.tell("n", 2, "all")


async def test_answers_find_their_question_and_late_ones_nobody() -> None:
    worker = Worker()
    first, second, third = (asyncio.ensure_future(worker.tells.ask("n", number, 0, 5.0)) for number in range(3))
    await wait_until(lambda: len(worker.link.sent) == 3)
    ids = [message.id for message in worker.link.sent if isinstance(message, Tell)]
    third.cancel()
    worker.tells.received(Answered(ids[1], pack("b"), ""))
    worker.tells.received(Answered(ids[1], pack("b again"), ""))
    worker.tells.received(Answered(ids[0], b"", "no luck"))
    assert await second == "b"
    with pytest.raises(TellError, match="no luck"):
        await first
    with pytest.raises(asyncio.CancelledError):
        await third
    worker.tells.received(Answered(ids[2], pack("c"), ""))
    worker.tells.received(Answered(99, b"\xc1", ""))


async def test_questions_without_an_answer_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tells, "MAX_ASKED", 1)
    worker = Worker()
    first = asyncio.ensure_future(worker.tells.ask("n", 0, 0, 5.0))
    await wait_until(lambda: worker.link.sent)
    with pytest.raises(TellError, match="without an answer already"):
        await worker.tells.ask("n", 1, 0, 5.0)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.ensure_future(worker.tells.ask("n", 2, 0, 5.0))
    await wait_until(lambda: len(worker.link.sent) == 2)
    second.cancel()


async def test_bytes_that_are_no_value_are_refused() -> None:
    worker = Worker(n=lambda payload: payload)
    worker.tells.received(Deliver(1, 0, "n", b"\xc1"))
    await worker.idle()
    assert worker.answers[0][2].startswith("'n': its payload is unreadable there")


async def test_nobody_there_is_told_at_debug_level_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    with caplog.at_level(logging.DEBUG, "stickygw.app"):
        for _ in range(5):
            worker.receive("nobody")
    records = [record for record in caplog.records if record.name == "stickygw.app"]
    assert [record.levelno for record in records] == [logging.DEBUG]
    assert worker.counters.value("tells_dropped", "no_handler") == 5


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable
