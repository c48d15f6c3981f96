"""Carries messages between workers, and from commands to workers: `Tells` knows who is asked and who waits.

The primary looks into no payload. It calls back what it is given: who owns which slot, and how to reach a worker.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from stickygw.errors import TellError
from stickygw.observability.counters import Counters
from stickygw.observability.drops import Drops
from stickygw.primary.deadlines import Deadlines
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import Answer, Answered, Deliver, Tell
from stickygw.wire.outbox import Outbox
from stickygw.wire.tell import COMMAND, LONGEST_ASK_SECONDS, MAX_PAYLOAD_BYTES, check_name

log = logging.getLogger("stickygw.tells")

MAX_QUESTIONS = 4096
"""Questions of all workers and commands that may be without an answer at the same time."""

ToWorker = Deliver | Answered
OnAnswer = Callable[[bytes, str], None]
"""Called once with the answer's payload, or with an error that is not ""."""


@dataclass(frozen=True, slots=True)
class _Question:
    """One that a worker was asked. `asker` is None for a command."""

    name: str
    slot: Slot
    worker: WorkerId
    asker: WorkerId | None
    on_answer: OnAnswer


class Tells:
    """The messages of one gateway. Made on the running loop.

    `owners` gives the workers that own their slots and are ready, `least_loaded` the slot to prefer now, None without
    any. `send` and `wait_writable` are those of a worker's link. What a full queue does not take is dropped and counted
    (``tells_dropped``); each queue is bounded as `stickygw.wire.outbox` says.
    """

    def __init__(
        self,
        *,
        owners: Callable[[], dict[Slot, WorkerId]],
        least_loaded: Callable[[], Slot | None],
        send: Callable[[WorkerId, ToWorker], bool],
        wait_writable: Callable[[WorkerId, Callable[[], None]], None],
        counters: Counters,
        longest_ask: float = LONGEST_ASK_SECONDS,
    ) -> None:
        self._owners = owners
        self._least_loaded = least_loaded
        self._send = send
        self._wait_writable = wait_writable
        self._drops = Drops("tells_dropped", counters=counters, log=log)
        self._loop = asyncio.get_running_loop()
        self._outboxes: dict[WorkerId, Outbox[ToWorker]] = {}
        self._tickets = itertools.count(1)
        self._questions: dict[int, _Question] = {}
        self._longest_ask = longest_ask
        self._deadlines: Deadlines[int] = Deadlines(longest_ask, on_expired=self._expired)

    # --- workers ------------------------------------------------------------------------------------------------------

    def received(self, worker: WorkerId, slot: Slot, message: Tell | Answer) -> None:
        """What `worker`, which has or had `slot`, sent."""
        if isinstance(message, Answer):
            self._answered(worker, message)
        elif message.id:
            self._asked(worker, slot, message)
        else:
            try:
                targets = self._targets(message.to)
            except TellError as error:
                self._drops.add("no_worker", f"{message.name!r} from slot {slot} was dropped: {error}")
                return
            self._deliver(targets, slot, message.name, message.payload)

    def gone(self, worker: WorkerId) -> None:
        """`worker` has ended and its link is read: what it was asked fails, what it asked is forgotten."""
        self._outboxes.pop(worker, None)
        for ticket, question in list(self._questions.items()):
            if question.asker == worker:
                self._forget(ticket)
            elif question.worker == worker:
                self._settle(ticket, error=f"the worker of slot {question.slot} ended before it answered")

    def close(self) -> None:
        """The gateway ends: every question fails. Idempotent."""
        for ticket in list(self._questions):
            self._settle(ticket, error="the gateway stops")
        self._deadlines.clear()

    # --- commands -----------------------------------------------------------------------------------------------------

    def tell(self, name: str, payload: bytes, to: int | str) -> int:
        """Tell the workers `to` ("all", "least_loaded" or a slot); to how many it went.

        Raises `TellError` when there is no such worker, `ValueError` for a name or payload that cannot be sent.
        """
        _check(name, payload)
        return self._deliver(self._targets(to), COMMAND, name, payload)

    async def ask(self, name: str, payload: bytes, to: int | str, timeout: float) -> dict[Slot, bytes | TellError]:
        """Ask the workers `to` ("all", "least_loaded" or a slot); each one's answer (msgpack), or why there is none.

        `timeout` is in seconds, at most `LONGEST_ASK_SECONDS`. Raises like `tell`.
        """
        _check(name, payload)
        if not 0 < timeout <= self._longest_ask:
            raise ValueError(f"timeout is more than 0 and at most {self._longest_ask:g} seconds, not {timeout!r}")
        answers: dict[Slot, asyncio.Future[bytes | TellError]] = {}
        tickets = []
        for slot, worker in self._targets(to).items():
            answers[slot] = self._loop.create_future()
            tickets.append(self._ask(slot, worker, COMMAND, name, payload, None, partial(_fulfil, answers[slot])))
        try:
            await asyncio.wait(answers.values(), timeout=timeout)
        finally:
            for ticket in tickets:
                self._forget(ticket)
        late = TellError(f"{name!r}: no answer within {timeout:g} s")
        return {slot: answer.result() if answer.done() else late for slot, answer in answers.items()}

    # --- one message --------------------------------------------------------------------------------------------------

    def _targets(self, to: int | str) -> dict[Slot, WorkerId]:
        """The workers that `to` means now, at least one. Raises `TellError`."""
        owners = self._owners()
        if to == "all" and owners:
            return owners
        slot = self._least_loaded() if to == "least_loaded" else to
        for owned, worker in owners.items():
            if owned == slot:
                return {owned: worker}
        raise TellError(f"slot {to} has no worker that is ready" if isinstance(to, int) else "no worker is ready")

    def _deliver(self, targets: dict[Slot, WorkerId], sender: int | str, name: str, payload: bytes) -> int:
        message = Deliver(0, sender, name, payload)
        return sum(self._post(worker, message, slot) for slot, worker in targets.items())

    def _asked(self, asker: WorkerId, slot: Slot, message: Tell) -> None:
        def reply(payload: bytes, error: str) -> None:
            self._post(asker, Answered(message.id, payload, error), slot)

        try:
            target, worker = next(iter(self._targets(message.to).items()))
        except TellError as error:
            reply(b"", f"{message.name!r}: {error}")
            return
        self._ask(target, worker, slot, message.name, message.payload, asker, reply)

    def _ask(
        self,
        slot: Slot,
        worker: WorkerId,
        sender: int | str,
        name: str,
        payload: bytes,
        asker: WorkerId | None,
        on_answer: OnAnswer,
    ) -> int:
        """Send the question, or fail it at once; its ticket."""
        ticket = next(self._tickets)
        if len(self._questions) >= MAX_QUESTIONS:
            on_answer(b"", f"{name!r}: {MAX_QUESTIONS} questions are without an answer already")
            return ticket
        self._questions[ticket] = _Question(name, slot, worker, asker, on_answer)
        self._deadlines.add(ticket)
        if not self._post(worker, Deliver(ticket, sender, name, payload), slot):
            self._settle(ticket, error=f"too many messages wait for slot {slot} already")
        return ticket

    def _answered(self, worker: WorkerId, answer: Answer) -> None:
        question = self._questions.get(answer.ticket)
        if question is not None and question.worker == worker:  # else it comes too late
            self._forget(answer.ticket)
            question.on_answer(answer.payload, answer.error)

    def _settle(self, ticket: int, *, error: str) -> None:
        """Fail the question of `ticket`."""
        question = self._questions[ticket]
        self._forget(ticket)
        question.on_answer(b"", f"{question.name!r}: {error}")

    def _expired(self, ticket: int) -> None:
        self._settle(ticket, error=f"no answer within {self._longest_ask:g} s")

    def _forget(self, ticket: int) -> None:
        self._questions.pop(ticket, None)
        self._deadlines.remove(ticket)

    def _post(self, worker: WorkerId, message: ToWorker, slot: Slot) -> bool:
        """Send it, or keep it while the worker's link is full. False: it is dropped, and counted."""
        outbox = self._outboxes.get(worker)
        if outbox is None:
            outbox = self._outboxes[worker] = Outbox(
                send=partial(self._send, worker), wait_writable=partial(self._wait_writable, worker)
            )
        if outbox.post(message):
            return True
        what = f"{message.name!r}" if isinstance(message, Deliver) else "an answer"
        self._drops.add("link_full", f"{what} for slot {slot} was dropped: too many messages wait for its worker")
        return False


def _check(name: str, payload: bytes) -> None:
    check_name(name)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"the payload has {len(payload)} bytes packed; at most {MAX_PAYLOAD_BYTES} are sent")


def _fulfil(answer: asyncio.Future[bytes | TellError], payload: bytes, error: str) -> None:
    if not answer.done():
        answer.set_result(TellError(error) if error else payload)
