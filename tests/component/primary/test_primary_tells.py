"""How the primary carries messages: to whom they go, who hears of a failure, and that nothing is kept for ever."""

import asyncio
from collections.abc import Callable

import pytest
from support.waiting import wait_until

from stickygw.errors import TellError
from stickygw.observability.counters import Counters
from stickygw.primary import tells
from stickygw.primary.tells import Tells
from stickygw.types import Slot, WorkerId
from stickygw.wire import outbox
from stickygw.wire.link import Answer, Answered, Deliver, Tell
from stickygw.wire.tell import MAX_PAYLOAD_BYTES

ZERO, ONE, TWO = Slot(0), Slot(1), Slot(2)


class Fleet:
    """Workers 10, 11, … in the slots 0, 1, …, with links that keep what they are sent."""

    def __init__(self, slots: int = 2, *, longest_ask: float = 60.0) -> None:
        self.owners = {Slot(slot): WorkerId(10 + slot) for slot in range(slots)}
        self.least_loaded: Slot | None = Slot(slots - 1)
        self.sent: list[tuple[WorkerId, Deliver | Answered]] = []
        self.full: set[WorkerId] = set()
        self.waiting: dict[WorkerId, Callable[[], None]] = {}
        self.counters = Counters()
        self.tells = Tells(
            owners=lambda: self.owners,
            least_loaded=lambda: self.least_loaded,
            send=self._send,
            wait_writable=self._wait_writable,
            counters=self.counters,
            longest_ask=longest_ask,
        )

    def _send(self, worker: WorkerId, message: Deliver | Answered) -> bool:
        if worker not in self.full:
            self.sent.append((worker, message))
        return worker not in self.full

    def _wait_writable(self, worker: WorkerId, callback: Callable[[], None]) -> None:
        assert worker not in self.waiting, "one at a time"
        self.waiting[worker] = callback

    def drain(self, worker: WorkerId) -> None:
        """Its link takes messages again."""
        self.full.discard(worker)
        self.waiting.pop(worker)()

    def receive(self, slot: Slot, message: Tell | Answer) -> None:
        self.tells.received(WorkerId(10 + slot), slot, message)

    def take(self) -> list[tuple[WorkerId, Deliver | Answered]]:
        sent, self.sent = self.sent, []
        return sent

    def answers(self) -> list[tuple[WorkerId, int, bytes, str]]:
        return [(to, sent.id, sent.payload, sent.error) for to, sent in self.take() if isinstance(sent, Answered)]

    def is_empty(self) -> bool:
        return not self.tells._questions and not len(self.tells._deadlines)


@pytest.mark.parametrize(("to", "workers"), [("all", [10, 11, 12]), ("least_loaded", [12]), (1, [11])])
async def test_what_is_told_goes_to_the_workers_it_is_for_the_sender_among_them(
    to: int | str, workers: list[int]
) -> None:
    fleet = Fleet(3)
    fleet.receive(ZERO, Tell(0, to, "news", b"\x01"))
    assert fleet.take() == [(worker, Deliver(0, 0, "news", b"\x01")) for worker in workers]
    assert fleet.tells.tell("news", b"\x02", to) == len(workers)
    assert fleet.take() == [(worker, Deliver(0, "command", "news", b"\x02")) for worker in workers]


async def test_what_nobody_gets_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(1)
    fleet.receive(ZERO, Tell(0, 7, "news", b""))
    fleet.receive(ZERO, Tell(0, 7, "news", b""))
    assert fleet.counters.value("tells_dropped", "no_worker") == 2
    assert [record.getMessage() for record in caplog.records] == [
        "'news' from slot 0 was dropped: slot 7 has no worker that is ready"
    ]
    with pytest.raises(TellError, match="slot 7 has no worker"):
        fleet.tells.tell("news", b"", 7)
    fleet.owners.clear()
    fleet.least_loaded = None
    for to in ("all", "least_loaded"):
        with pytest.raises(TellError, match="no worker is ready"):
            fleet.tells.tell("news", b"", to)
    assert fleet.take() == []


async def test_an_answer_goes_to_the_asker_under_its_own_id() -> None:
    fleet = Fleet()
    fleet.receive(ZERO, Tell(5, 1, "a", b"\x01"))
    fleet.receive(ONE, Tell(5, "least_loaded", "b", b"\x02"))
    (_, first), (_, second) = fleet.take()
    assert isinstance(first, Deliver)
    assert isinstance(second, Deliver)
    assert first.ticket != second.ticket
    fleet.receive(ONE, Answer(second.ticket, b"\x04", ""))
    fleet.receive(ONE, Answer(first.ticket, b"", "it raised"))
    fleet.receive(ONE, Answer(first.ticket, b"\x03", ""))  # nobody waits for a second one
    assert fleet.answers() == [(11, 5, b"\x04", ""), (10, 5, b"", "it raised")]
    assert fleet.is_empty()


async def test_a_question_for_nobody_fails_at_once() -> None:
    fleet = Fleet()
    fleet.receive(ZERO, Tell(5, 7, "a", b""))
    assert fleet.answers() == [(10, 5, b"", "'a': slot 7 has no worker that is ready")]


async def test_only_the_worker_that_was_asked_answers() -> None:
    fleet = Fleet(3)
    fleet.receive(ZERO, Tell(5, 1, "a", b""))
    ((_, asked),) = fleet.take()
    assert isinstance(asked, Deliver)
    fleet.receive(TWO, Answer(asked.ticket, b"\x01", ""))
    assert fleet.answers() == []
    fleet.receive(ONE, Answer(asked.ticket, b"\x02", ""))
    assert fleet.answers() == [(10, 5, b"\x02", "")]


async def test_the_death_of_who_is_asked_is_told_and_that_of_who_asks_is_nobodys_business() -> None:
    fleet = Fleet(3)
    fleet.receive(ZERO, Tell(5, 1, "a", b""))
    fleet.receive(ONE, Tell(6, 2, "b", b""))
    fleet.take()
    del fleet.owners[ONE]
    fleet.tells.gone(WorkerId(11))
    assert fleet.answers() == [(10, 5, b"", "'a': the worker of slot 1 ended before it answered")]
    assert fleet.is_empty()


async def test_a_question_is_forgotten_after_the_longest_wait() -> None:
    fleet = Fleet(longest_ask=0.02)
    fleet.receive(ZERO, Tell(5, 1, "a", b""))
    await wait_until(fleet.is_empty)
    assert fleet.answers() == [(10, 5, b"", "'a': no answer within 0.02 s")]


async def test_a_full_link_keeps_messages_in_order_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_MESSAGES", 3)
    fleet = Fleet()
    fleet.full.add(WorkerId(11))
    for number in range(4):
        fleet.receive(ZERO, Tell(0, "all", "n", bytes([number])))
    fleet.receive(ZERO, Tell(5, 1, "n", b"\x09"))
    sent = fleet.take()
    assert [message.payload for to, message in sent if to == 10] == [b"\0", b"\1", b"\2", b"\3", b""]
    assert sent[-1][1] == Answered(5, b"", "'n': too many messages wait for slot 1 already")
    assert fleet.counters.value("tells_dropped", "link_full") == 2
    assert len(caplog.records) == 1, "once a second at most"
    fleet.full.discard(WorkerId(11))  # there is room again, but its turn has not come
    fleet.receive(ZERO, Tell(0, 1, "n", b"\7"))
    fleet.drain(WorkerId(11))
    assert [(to, message.payload) for to, message in fleet.take()] == [(11, b"\0"), (11, b"\1"), (11, b"\2")]
    fleet.receive(ZERO, Tell(0, 1, "n", b"\4"))
    assert len(fleet.take()) == 1
    assert fleet.is_empty()


async def test_a_queue_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_BYTES", 10)
    fleet = Fleet(1)
    fleet.full.add(WorkerId(10))
    for _ in range(2):  # what has gone counts no more
        for payload in (b"12345", b"123456", b"12345", b"1"):
            fleet.receive(ZERO, Tell(0, 0, "n", payload))
        fleet.drain(WorkerId(10))
        assert [message.payload for _, message in fleet.take()] == [b"12345", b"12345"]
        fleet.full.add(WorkerId(10))


async def test_what_waits_for_a_worker_that_is_gone_is_forgotten() -> None:
    fleet = Fleet()
    fleet.full.add(WorkerId(11))
    fleet.receive(ZERO, Tell(0, 1, "n", b""))
    fleet.tells.gone(WorkerId(11))
    assert not fleet.tells._outboxes


async def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tells, "MAX_QUESTIONS", 1)
    fleet = Fleet()
    fleet.receive(ZERO, Tell(1, 1, "n", b""))
    fleet.receive(ZERO, Tell(2, 1, "n", b""))
    assert fleet.answers() == [(10, 2, b"", "'n': 1 questions are without an answer already")]


# Commands


async def test_a_command_hears_from_each_worker_it_asked() -> None:
    fleet = Fleet(3)
    asking = asyncio.ensure_future(fleet.tells.ask("n", b"\x01", "all", 5.0))
    await wait_until(lambda: len(fleet.sent) == 3)
    for slot, (to, message) in enumerate(fleet.take()):
        assert isinstance(message, Deliver)
        assert (to, message.sender, message.payload) == (10 + slot, "command", b"\x01")
        if slot == 0:
            fleet.receive(ZERO, Answer(message.ticket, b"\x02", ""))
        elif slot == 1:
            fleet.receive(ONE, Answer(message.ticket, b"", "it raised"))
    fleet.tells.gone(WorkerId(12))
    answers = await asking
    assert list(answers) == [0, 1, 2]
    assert answers[ZERO] == b"\x02"
    assert str(answers[ONE]) == "it raised"
    assert str(answers[TWO]) == "'n': the worker of slot 2 ended before it answered"
    assert fleet.is_empty()


async def test_a_command_waits_no_longer_than_it_says() -> None:
    fleet = Fleet(1)
    answers = await fleet.tells.ask("n", b"", "all", 0.02)
    assert str(answers[ZERO]) == "'n': no answer within 0.02 s"
    assert fleet.is_empty()


async def test_a_command_that_cannot_be_carried_out_says_why() -> None:
    fleet = Fleet(1)
    with pytest.raises(TellError, match="slot 1 has no worker"):
        await fleet.tells.ask("n", b"", 1, 1.0)
    for name, payload in (("", b""), ("x" * 129, b""), ("n", b"x" * (MAX_PAYLOAD_BYTES + 1))):
        with pytest.raises(ValueError, match=r"name|payload"):
            fleet.tells.tell(name, payload, "all")
        with pytest.raises(ValueError, match=r"name|payload"):
            await fleet.tells.ask(name, payload, "all", 1.0)
    with pytest.raises(ValueError, match="timeout"):
        await fleet.tells.ask("n", b"", "all", 61.0)


async def test_the_end_of_the_gateway_ends_every_wait() -> None:
    fleet = Fleet()
    asking = asyncio.ensure_future(fleet.tells.ask("n", b"", 0, 60.0))
    await wait_until(lambda: fleet.sent)
    fleet.receive(ZERO, Tell(5, 1, "n", b""))
    fleet.tells.close()
    assert str((await asking)[ZERO]) == "'n': the gateway stops"
    assert fleet.answers() == [(10, 5, b"", "'n': the gateway stops")]
    assert fleet.is_empty()
