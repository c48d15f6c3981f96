"""What a command asks of a running gateway, and what it is told: each request, on real processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from primary_rig import cookie_for, head_of
from supervised_rig import NOTE_ALL, SERVE, Supervised, supervised
from support.waiting import wait_until

from stickygw.errors import CommandError, ExitCode, TargetError
from stickygw.primary.control import Control
from stickygw.primary.notify import Notifier
from stickygw.primary.status import Facts, StatusReport
from stickygw.primary.steering import Steering
from stickygw.supervision import events as to
from stickygw.wire.control import Request, Result, encode
from stickygw.wire.status import RoomStorePlace, SessionStorePlace, SlotStatus, Status, WorkerStatus
from stickygw.wire.tell import SESSIONS_IN_USE, pack

COOKIE = cookie_for(1).partition(": ")[2]

STORE: SessionStorePlace = {"url": "redis://:secret@db", "prefix": "chat", "lifetime": 60}
ROOM_STORE: RoomStorePlace = {"url": "redis://:secret@db", "prefix": "chat", "secret": "s" * 32}


class Commands:
    """A gateway, and its control socket's requests."""

    def __init__(self, gateway: Supervised) -> None:
        self.gateway = gateway
        self.progress: list[str] = []
        self.stopped: asyncio.Future[ExitCode] = asyncio.get_running_loop().create_future()
        self.caught_up: asyncio.Future[to.Finished] | None = None
        rig, supervisor = gateway.rig, gateway.supervisor
        facts = Facts("1.2.3", "app:app", [rig.listener.url], "/run/here", asyncio.get_running_loop().time() - 100)
        self._control = Control(
            supervisor=supervisor,
            steering=Steering(supervisor, Notifier({})),
            hand_overs=rig.hand_overs,
            router=rig.router,
            tells=gateway.tells,
            status=StatusReport(
                facts, supervisor=supervisor, hand_overs=rig.hand_overs, intake=rig.intake, counters=rig.counters
            ),
            session_store=STORE,
            room_store=ROOM_STORE,
            stop=lambda: self.stopped,
            upgrade=self._upgrade,
            caught_up=lambda: self.caught_up,
        )

    async def _upgrade(self, progress: Callable[[str], None]) -> None:
        progress("checking")

    async def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The facts of the result, which fit the control socket."""
        facts = await self._control.handle(Request(command, arguments), self.progress.append)
        encode(Result(facts))
        return facts

    async def status(self) -> Status:
        return await self.do("status")  # type: ignore[return-value]


@asynccontextmanager
async def commanded(directory: Path, *script: str, **options: Any) -> AsyncIterator[Commands]:
    """A gateway whose first worker at least is ready."""
    async with supervised(directory, *script, **options) as gateway:
        await wait_until(lambda: gateway.events.names)
        yield Commands(gateway)


# --- status -----------------------------------------------------------------------------------------------------------


async def test_the_status_has_every_fact(short_dir: Path):
    script = 'beat(report={"rooms": 3}); say(Blocked("chat.py:7 in said", 0.25)) if configure.slot else 0'
    async with commanded(short_dir, script, NOTE_ALL) as commands:
        await commands.gateway.wait_ready()
        status = await commands.status()
        assert set(status) == set(Status.__annotations__)
        assert [set(worker) for worker in status["workers"]] == [set(WorkerStatus.__annotations__)] * 2
        assert [set(slot) for slot in status["slots_detail"]] == [set(SlotStatus.__annotations__)] * 2
        assert (status["version"], status["target"], status["runtime_dir"]) == ("1.2.3", "app:app", "/run/here")
        assert (status["pid"], status["state"], status["slots"]) == (os.getpid(), "running", 2)
        assert status["generation"] == 1
        assert status["uptime"] >= 100
        [first, second] = status["workers"]
        told = {"served": 7, "queued": 3, "received": 20, "sent": 10, "cpu": 0.5, "lag": 0.125, "rss": 1 << 20}
        assert {name: first[name] for name in told} == told  # type: ignore[literal-required]
        assert first["report"] == {"rooms": 3}
        assert (first["slot"], first["state"], first["is_owner"], first["generation"]) == (0, "ready", True, 1)
        assert first["pid"] == commands.gateway.pid(0)
        assert 0 <= first["silent_for"] <= first["uptime"]
        assert [worker["blocked"] for worker in (first, second)] == [None, "chat.py:7 in said"]


async def test_the_status_counts_connections_as_the_primary_does(short_dir: Path):
    script = """
    say(Ready())
    beat(connections=5)
    time.sleep(60)
    """
    async with commanded(short_dir, script, slots=1) as commands:
        await commands.gateway.rig.client(head_of())
        await commands.gateway.rig.client(head_of()[:9])
        await wait_until(lambda: commands.gateway.rig.intake.pending == 1)
        status = await commands.status()
        assert (status["connections"], status["pending"], status["workers"][0]["connections"]) == (1, 1, 1)
        assert status["counters"]["routes{round_robin}"] == 1


async def test_the_status_gives_messages_a_second(short_dir: Path):
    script = """
    say(Ready())
    say(Heartbeat(0.0, 0, 0, 0, 100, 200, 0.0, 0, {}))
    while not os.path.exists(mark):  # until the first is heard
        time.sleep(0.01)
    time.sleep(0.1)
    say(Heartbeat(0.0, 0, 0, 0, 110, 230, 0.0, 0, {}))
    link.recv(1)
    """
    async with commanded(short_dir, script, slots=1) as commands:
        worker = commands.gateway.owner(0)
        assert worker is not None
        vital = commands.gateway.supervisor.vitals.of
        await wait_until(lambda: (last := vital(worker)) is not None and last.beat.sent == 200)
        commands.gateway.mark.touch()
        await wait_until(lambda: (last := vital(worker)) is not None and last.beat.sent == 230)
        [status] = (await commands.status())["workers"]
        assert 0 < status["received_per_second"] <= 110
        assert status["sent_per_second"] == pytest.approx(3 * status["received_per_second"])


async def test_the_status_tells_of_two_workers_in_a_slot_and_of_what_is_being_done(short_dir: Path):
    script = "if configure.generation == 2: time.sleep(60)"
    async with commanded(short_dir, script, SERVE, slots=1) as commands:
        commands.gateway.supervisor.ask(to.Reload())
        await wait_until(lambda: commands.gateway.generations() == [(0, 1), (0, 2)])
        status = await commands.status()
        assert status["state"].startswith("reloading")
        assert [(worker["state"], worker["is_owner"]) for worker in status["workers"]] == [
            ("ready", True),
            ("starting", False),
        ]
        assert status["slots_detail"][0]["state"] == "ready"


async def test_the_status_tells_how_each_slot_is(short_dir: Path):
    script = """
    if configure.slot == 1:
        while not os.path.exists(mark):  # before any worker is ready, it would end the gateway
            time.sleep(0.01)
        say(Failed("slot 1 is cursed"))
        sys.exit(4)
    if configure.slot == 2:
        time.sleep(60)
    """
    async with commanded(short_dir, script, SERVE, slots=4) as commands:
        await wait_until(lambda: commands.gateway.rig.view(0).is_ready and commands.gateway.rig.view(3).is_ready)
        commands.gateway.mark.touch()
        await commands.do("drain", slot=3)

        async def is_backing_off() -> bool:
            return (await commands.status())["slots_detail"][1]["state"] == "backing off"

        await wait_until(is_backing_off)
        slots = (await commands.status())["slots_detail"]
        assert [slot["state"] for slot in slots] == ["ready", "backing off", "starting", "drained"]
        assert slots[1]["last_failure"] == "slot 1 is cursed"
        assert slots[1]["restarts"] >= 1
        assert 0 <= (slots[1]["next_start_in"] or 0) <= 10
        assert (slots[0]["last_failure"], slots[0]["next_start_in"]) == (None, None)


# --- why --------------------------------------------------------------------------------------------------------------


async def test_why_says_where_a_client_would_go(short_dir: Path):
    async with commanded(short_dir, SERVE) as commands:
        await commands.gateway.wait_ready()
        found = await commands.do("why", cookie=COOKIE)
        assert (found["slot"], found["reason"]) == (1, "cookie")
        assert "it goes to slot 1 (cookie)" in found["steps"][-1]
        assert (await commands.do("why"))["reason"] == "round_robin"


# --- what steers ------------------------------------------------------------------------------------------------------


async def test_what_was_asked_is_done_and_told_with_its_steps(short_dir: Path):
    async with commanded(short_dir, SERVE, slots=1) as commands:
        assert "generation 2" in (await commands.do("reload"))["message"]
        assert any(text.startswith("slot 0: ") for text in commands.progress)
        assert "2 slots" in (await commands.do("scale", slots=2))["message"]
        assert "slot 1" in (await commands.do("drain", slot=1))["message"]
        assert "slot 1" in (await commands.do("restart", slot=1))["message"]
        assert commands.gateway.generations() == [(0, 2), (1, 2)]


async def test_a_command_waits_for_the_one_before_it(short_dir: Path):
    async with commanded(short_dir, SERVE, slots=1) as commands:
        first, second = await asyncio.gather(commands.do("reload"), commands.do("scale", slots=2))
        assert "generation 2" in first["message"]
        assert "2 slots" in second["message"]
        assert any(text.startswith("waits for the end of: reloading") for text in commands.progress)


async def test_a_reload_of_a_broken_application_fails_as_its_target_does(short_dir: Path):
    script = "if configure.generation == 2: say(Failed('SyntaxError: chat.py, line 3')); sys.exit(4)"
    async with commanded(short_dir, script, SERVE, slots=1) as commands:
        with pytest.raises(TargetError, match=r"SyntaxError: chat\.py, line 3") as failed:
            await commands.do("reload")
        assert failed.value.exit_code is ExitCode.TARGET


NOT_TO_BE_DONE: list[tuple[str, dict[str, Any], str]] = [
    ("dance", {}, "there is no command 'dance': status, why, reload"),
    ("scale", {"slots": 0}, "1 to 1024 slots, not 0"),
    ("scale", {"slots": 10**18}, "1 to 1024 slots"),
    *(("scale", {"slots": wrong}, "slots is a whole number") for wrong in ("2", True, 1.5, None)),
    *((command, {}, "slot is a whole number") for command in ("drain", "restart")),
    ("drain", {"slot": 7}, "no slot 7"),
    ("restart", {"slot": -1}, "no slot -1"),
    ("drain", {"slot": 0}, "slot 0 is the last one that serves"),
    *(("why", {name: wrong}, f"{name} is a text") for name, wrong in (("cookie", 7), ("ip", b"x"), ("key", ["a"]))),
    ("ask", {"to": "all", "name": "echo"}, "timeout is a number of seconds"),
    ("ask", {"to": "all", "name": "echo", "timeout": True}, "timeout is a number of seconds"),
    ("ask", {"to": "all", "name": "echo", "timeout": 0}, "timeout is more than 0"),
    ("ask", {"to": "all", "name": "echo", "timeout": float("nan")}, "timeout is more than 0"),
    ("ask", {"to": 7, "name": "echo", "timeout": 1}, "slot 7 has no worker that is ready"),
    ("sessions.in_use", {"ids": None}, "timeout is a number of seconds"),
    *(("sessions.in_use", {"ids": ids, "timeout": 1}, "at most 500 texts") for ids in ("a", [1], ["a"] * 501)),
    ("sessions.in_use", {"timeout": 0}, "timeout is more than 0"),
    ("tell", {"to": "all"}, "name is text"),
    ("tell", {"to": "all", "name": 7}, "name is a text"),
    *(("tell", {"to": to, "name": "echo"}, "goes to all, least_loaded or a slot") for to in ("me", True, [1], None)),
    ("tell", {"to": 7, "name": "echo"}, "slot 7 has no worker that is ready"),
    ("tell", {"to": "all", "name": "echo", "payload": "x" * 70_000}, "the payload has 70005 bytes packed"),
    ("tell", {"to": "all", "name": "echo", "payload": {(1,): 2}}, "the payload is no msgpack value"),
]


async def test_an_upgrade_is_answered_by_the_code_that_was_and_its_end_by_the_code_that_is(short_dir: Path):
    async with commanded(short_dir, SERVE, slots=1) as commands:
        assert await commands.do("upgrade") == {"version": "1.2.3"}
        assert commands.progress == ["checking"]
        with pytest.raises(CommandError, match="no worker was adopted"):
            await commands.do("upgraded")
        commands.caught_up = asyncio.get_running_loop().create_future()
        commands.caught_up.set_result(to.Finished(1, "2 slots", is_well=True))
        assert await commands.do("upgraded") == {"version": "1.2.3", "message": "2 slots"}


async def test_what_cannot_be_done_is_refused_with_the_reason(short_dir: Path):
    async with commanded(short_dir, NOTE_ALL, slots=1) as commands:
        for command, arguments, message in NOT_TO_BE_DONE:
            with pytest.raises(CommandError, match=message):
                await commands.do(command, **arguments)
        assert commands.gateway.generations() == [(0, 1)]
        assert commands.gateway.notes() == []


async def test_a_stop_is_told_with_how_it_ended(short_dir: Path):
    async with commanded(short_dir, SERVE, slots=1) as commands:
        stopping = asyncio.ensure_future(commands.do("stop"))
        await wait_until(lambda: commands.progress == ["stopping: 0 connections"])
        assert not stopping.done()
        commands.stopped.set_result(ExitCode.FORCED_STOP)
        assert await stopping == {"exit": "FORCED_STOP"}


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_what_is_told_reaches_the_workers(short_dir: Path):
    async with commanded(short_dir, NOTE_ALL) as commands:
        await commands.gateway.wait_ready()
        assert await commands.do("tell", to="all", name="again", payload={"a": 1}) == {"told": 2}
        assert await commands.do("tell", to=1, name="once") == {"told": 1}
        assert await commands.do("tell", to="least_loaded", name="least") == {"told": 1}
        await wait_until(lambda: len(commands.gateway.notes()) == 4)
        notes = commands.gateway.notes()
        assert sorted(note for note in notes if "again" in note) == [
            f"{slot}.1 Deliver(ticket=0, sender='command', name='again')" for slot in (0, 1)
        ]
        assert [note.split()[0] for note in notes if "once" in note] == ["1.1"]


async def test_what_is_asked_is_answered_by_slot(short_dir: Path):
    async with commanded(short_dir, NOTE_ALL) as commands:
        await commands.gateway.wait_ready()
        for payload in (None, {"a": [1, 2.5, "ü", b"\0"]}, {1: "one", "two": 2}):
            facts = await commands.do("ask", to="all", name="echo", payload=payload, timeout=5)
            assert facts == {"answers": {slot: {"payload": payload} for slot in (0, 1)}}
        facts = await commands.do("ask", to=1, name="sum", timeout=5)
        assert facts == {"answers": {1: {"error": "no sum here"}}}


async def test_one_that_does_not_answer_in_time_is_told_with_the_others(short_dir: Path):
    script = "if configure.slot == 1: say(Ready()); time.sleep(60)"
    async with commanded(short_dir, script, NOTE_ALL) as commands:
        await commands.gateway.wait_ready()
        facts = await commands.do("ask", to="all", name="echo", payload=7, timeout=0.3)
        assert facts["answers"] == {0: {"payload": 7}, 1: {"error": "'echo': no answer within 0.3 s"}}


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_commands_learn_where_the_sessions_are_stored(short_dir: Path):
    async with commanded(short_dir, SERVE, slots=1) as commands:
        assert await commands.do("sessions.store") == STORE
        assert "secret" not in repr(Result(dict(STORE)))


async def test_commands_learn_what_it_takes_to_publish(short_dir: Path):
    async with commanded(short_dir, SERVE, slots=1) as commands:
        assert await commands.do("rooms.store") == ROOM_STORE
        assert "s" * 32 not in repr(Result(dict(ROOM_STORE)))


async def test_every_worker_is_asked_what_it_has_in_use_and_who_is_silent_is_named(short_dir: Path):
    script = """
    say(Ready())
    while not isinstance(message := decode(link.recv(1 << 17)), Deliver):
        pass
    if configure.slot == 0:
        note(message.sender, message.name, message.payload)
        say(Answer(message.ticket, bytes([7]), ""))
    link.recv(1)
    """
    async with commanded(short_dir, script) as commands:
        await commands.gateway.wait_ready()
        facts = await commands.do("sessions.in_use", ids=["a", "b"], timeout=0.3)
        assert facts["answers"] == {0: 7}
        assert list(facts["silent"]) == [1]
        assert "no answer within 0.3 s" in facts["silent"][1]
        assert commands.gateway.notes() == [f"0.1 command {SESSIONS_IN_USE} {pack(['a', 'b'])}"]


async def test_without_a_worker_no_session_is_in_use(short_dir: Path):
    async with supervised(short_dir, "time.sleep(60)", slots=1) as gateway:
        facts = await Commands(gateway).do("sessions.in_use", ids=None, timeout=1)
        assert facts == {"answers": {}, "silent": {}}
