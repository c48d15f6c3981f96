"""What operators ask for, carried out on real processes: reload, scale, drain, restart."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest
from primary_rig import cookie_for, head_of
from supervised_rig import NOTE_ALL, SERVE, supervised
from support.waiting import wait_until

from stickygw.primary import moves
from stickygw.primary.hand_over import HandOvers
from stickygw.primary.takers import Takers
from stickygw.primary.worker_process import WorkerProcess
from stickygw.supervision import events as to
from stickygw.types import Slot, WorkerId
from stickygw.wire.link import Message

TAKE = """
    def take():
        message = None
        while not isinstance(message, Offer):  # a link of a move may come first
            data, ancillary, *_ = link.recvmsg(1 << 17, 64)
            message = decode(data)
        fd = array.array("i", ancillary[0][2])[0]
        say(Taken([message.id]))
        socket.socket(fileno=fd).sendall(b"served")
"""


# --- reload -----------------------------------------------------------------------------------------------------------


async def test_a_reload_replaces_all_workers_slot_by_slot(short_dir: Path):
    async with supervised(short_dir, NOTE_ALL, drain_timeout=4.0, drain_spread=0.25) as gateway:
        await gateway.wait_ready()
        before = [gateway.owner(slot) for slot in (0, 1)]
        finished = await gateway.do(to.Reload())
        assert finished.is_well, finished
        assert gateway.generations() == [(0, 2), (1, 2)]
        assert gateway.events.gone == before
        drained = [note for note in gateway.notes() if "Drain" in note]
        assert drained == [f"{slot}.1 Drain(grace_seconds=4.0, spread_seconds=0.25)" for slot in (0, 1)]
        told = ["0.2 MoveIn(slot=0)", "1.2 MoveIn(slot=1)"]  # noted by those who serve on, when they come to it
        await wait_until(lambda: [note for note in gateway.notes() if "MoveIn" in note] == told)
        assert [text.split(":")[0] for text in gateway.progress] == ["slot 0", "slot 1"]
        assert gateway.events.names == ["first ready", "all ready"]
        assert gateway.supervisor.fleet.generation == 2


async def test_the_new_worker_hears_of_the_move_before_the_old_one_and_then_owns_the_slot(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[tuple[str, int]] = []
    is_up, send = HandOvers.worker_is_up, WorkerProcess.send

    def note_owner(self: HandOvers, worker: int, *rest: object) -> None:
        told.append(("owns", worker))
        is_up(self, worker, *rest)  # type: ignore[arg-type]

    def note_drain(self: WorkerProcess, message: Message, fd: int = -1) -> bool:
        told.append((type(message).__name__, self.worker))
        return send(self, message, fd)

    monkeypatch.setattr(HandOvers, "worker_is_up", note_owner)
    monkeypatch.setattr(WorkerProcess, "send", note_drain)
    async with supervised(short_dir, SERVE, slots=1) as gateway:
        await gateway.wait_ready()
        await gateway.do(to.Reload())
    assert told == [("owns", 1), ("MoveIn", 2), ("MoveOut", 1), ("Drain", 1), ("owns", 2)]


async def test_what_the_old_worker_left_unread_is_served_by_the_new_one(short_dir: Path):
    script = """
    say(Ready())
    if configure.generation == 1:
        while not os.path.exists(mark):
            time.sleep(0.01)
        sys.exit(0)
    take()
    note("took it")
    link.recv(1 << 17)
    """
    async with supervised(short_dir, TAKE, script, slots=1) as gateway:
        await gateway.wait_ready()
        client = await gateway.rig.client(head_of("/", cookie_for(0)))
        await wait_until(lambda: gateway.rig.hand_overs.connections == 1)
        progress: list[str] = []
        reloading = gateway.supervisor.ask(to.Reload(), progress.append)
        await wait_until(lambda: gateway.generations() == [(0, 1), (0, 2)] and gateway.rig.view(0).connections == 0)
        assert progress[0].startswith("slot 0: generation 2 is ready; 1 connection to come over")  # no beat has told so
        gateway.mark.touch()
        assert await client.read(6) == b"served"
        assert (await reloading).is_well
        assert gateway.rig.counters.value("hand_overs", "saved") == 1


@pytest.mark.parametrize(
    ("end", "why"),
    [("say(Failed('no such module: chat')); sys.exit(4)", "no such module: chat"), ("sys.exit(3)", "status 3")],
    ids=["says why", "dies"],
)
async def test_a_new_generation_that_cannot_start_leaves_the_old_one_serving(short_dir: Path, end: str, why: str):
    script = f"if configure.generation == 2: {end}"
    async with supervised(short_dir, script, NOTE_ALL) as gateway:
        await gateway.wait_ready()
        before = [gateway.owner(slot) for slot in (0, 1)]
        finished = await gateway.do(to.Reload())
        assert (finished.is_well, finished.is_target_broken) == (False, True)
        assert why in finished.text
        assert [gateway.owner(slot) for slot in (0, 1)] == before
        assert gateway.notes() == []  # nobody was asked to drain
        assert gateway.events.failures == []
        assert (await gateway.do(to.Reload())).is_well
        assert gateway.generations() == [(0, 3), (1, 3)]


async def test_a_new_generation_for_which_no_process_can_be_had_leaves_the_old_one_serving(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    def none_left(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    async with supervised(short_dir, SERVE, slots=1) as gateway:
        await gateway.wait_ready()
        count = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr("stickygw.primary.worker_process.start_process", none_left)
            finished = await gateway.do(to.Reload())
        assert not finished.is_well
        assert "cannot start a process: [Errno 11] Resource temporarily unavailable" in finished.text
        assert gateway.generations() == [(0, 1)]
        assert len(os.listdir("/proc/self/fd")) == count


async def test_a_worker_that_dies_during_a_reload_is_replaced_beside_it(short_dir: Path):
    script = """
    if configure.generation == 2 and configure.slot == 0:
        note("starts")
        while os.path.getsize(mark) < 20:
            time.sleep(0.01)
    """
    async with supervised(short_dir, script, SERVE) as gateway:
        await gateway.wait_ready()
        reloading = gateway.supervisor.ask(to.Reload())
        await wait_until(gateway.notes)
        first = gateway.pid(1)
        os.kill(first, signal.SIGKILL)
        await gateway.wait_other(1, first)
        with gateway.mark.open("a") as file:
            file.write("go on, go on, go on\n")
        assert (await reloading).is_well
        assert gateway.generations() == [(0, 2), (1, 2)]


# --- scale ------------------------------------------------------------------------------------------------------------


async def test_all_workers_are_told_how_many_slots_there_are(short_dir: Path):
    async with supervised(short_dir, NOTE_ALL, slots=1) as gateway:
        await gateway.wait_ready()
        first = gateway.owner(0)
        assert (await gateway.do(to.Scale(3))).is_well
        assert [view.is_ready for view in gateway.rig.hand_overs.views] == [True] * 3
        await wait_until(lambda: "1.1 Resize(workers=3)" in gateway.notes())
        assert (await gateway.do(to.Scale(1))).is_well
        assert [view.slot for view in gateway.rig.hand_overs.views] == [0]
        assert gateway.generations() == [(0, 1)]
        assert gateway.owner(0) == first
        await wait_until(lambda: "0.1 Resize(workers=1)" in gateway.notes())
        drained = {note.split()[0] for note in gateway.notes() if "Drain(" in note}
        assert drained == {"1.1", "2.1"}
        assert len(gateway.events.gone) == 2


async def test_a_slot_whose_first_worker_cannot_start_never_exists_for_clients(short_dir: Path):
    script = """
    if configure.slot == 2:
        say(Failed("no third one"))
        sys.exit(4)
    """
    async with supervised(short_dir, script, NOTE_ALL) as gateway:
        await gateway.wait_ready()
        finished = await gateway.do(to.Scale(3))
        assert not finished.is_well
        assert "no third one" in finished.text
        assert [view.slot for view in gateway.rig.hand_overs.views] == [0, 1]
        assert len(gateway.supervisor.fleet.slots) == 2
        assert gateway.notes() == []


async def test_who_belongs_to_a_slot_that_is_scaled_away_goes_to_another(short_dir: Path):
    script = """
    say(Ready())
    if configure.slot == 1:
        while not isinstance(decode(link.recv(1 << 17)), Drain):
            pass
        sys.exit(0)
    take()
    link.recv(1 << 17)
    """
    async with supervised(short_dir, TAKE, script) as gateway:
        await gateway.wait_ready()
        assert (await gateway.do(to.Scale(1))).is_well
        client = await gateway.rig.client(head_of("/", cookie_for(1)))
        assert await client.read(6) == b"served"
        assert gateway.rig.counters.value("routes", "session_hash") == 1


# --- one slot ---------------------------------------------------------------------------------------------------------


async def test_a_drained_slot_stays_empty_until_it_is_restarted(short_dir: Path):
    async with supervised(short_dir, NOTE_ALL) as gateway:
        await gateway.wait_ready()
        assert (await gateway.do(to.DrainSlot(Slot(1)))).is_well
        assert gateway.generations() == [(0, 1)]
        assert gateway.rig.view(1).is_drained
        assert not gateway.rig.view(1).is_ready
        assert not (await gateway.do(to.DrainSlot(Slot(0)))).is_well  # the last one that serves
        assert (await gateway.do(to.RestartSlot(Slot(1)))).is_well
        assert gateway.generations() == [(0, 1), (1, 1)]
        assert not gateway.rig.view(1).is_drained
        assert gateway.rig.view(1).is_ready


async def test_a_restart_replaces_one_worker_and_leaves_the_others_alone(short_dir: Path):
    async with supervised(short_dir, NOTE_ALL) as gateway:
        await gateway.wait_ready()
        pids = [gateway.pid(slot) for slot in (0, 1)]
        finished = await gateway.do(to.RestartSlot(Slot(1)))
        assert finished.is_well, finished
        assert gateway.pid(0) == pids[0]
        assert gateway.pid(1) not in (0, pids[1])
        assert gateway.generations() == [(0, 1), (1, 1)]


async def test_a_command_before_any_worker_was_ready_is_refused(short_dir: Path):
    async with supervised(short_dir, "time.sleep(60)", slots=1) as gateway:
        finished = await gateway.do(to.Reload())
        assert (finished.text, finished.is_well) == ("the gateway has not started yet", False)


async def test_a_worker_that_has_served_enough_is_replaced_though_nobody_asks(
    short_dir: Path, caplog: pytest.LogCaptureFixture
):
    script = """
    if not os.path.exists(mark):
        note("beats")
        say(Ready())
        beat()
    """
    caplog.set_level("INFO", "stickygw.supervisor")
    async with supervised(short_dir, script, SERVE, slots=1, max_served=7) as gateway:
        await wait_until(lambda: gateway.events.gone)
        await wait_until(lambda: "slot 0 is recycled" in caplog.text)
        assert gateway.supervisor.vitals.of(gateway.events.gone[0]) is None
        assert gateway.generations() == [(0, 1)]
        assert gateway.rig.view(0).is_ready


# --- moves ------------------------------------------------------------------------------------------------------------


MOVE = """
    say(Ready())
    while True:
        data, fds, *_ = socket.recv_fds(link, 1 << 17, 2)
        message = decode(data)
        note(type(message).__name__, len(fds))
        match message:
            case Drain():
                say(Moved(3, 1, 2))
                sys.exit(0)
            case MoveOut(slot):
                socket.socket(fileno=fds[0]).send(b"who comes to %d" % slot)
            case MoveIn():
                note(socket.socket(fileno=fds[0]).recv(99).decode())
            case Stop():
                sys.exit(0)
"""
"""Notes what it is told, with how many descriptors, and what comes over the link between the two."""


async def test_both_workers_of_a_slot_have_an_end_of_one_link_and_it_is_told_what_moved(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    moving: list[WorkerId] = []
    monkeypatch.setattr(Takers, "begin_to_move", lambda self, worker: moving.append(worker))
    async with supervised(short_dir, MOVE, slots=1) as gateway:
        await gateway.wait_ready()
        old = gateway.owner(0)
        before = len(os.listdir("/proc/self/fd"))
        finished = await gateway.do(to.Reload())
        await wait_until(lambda: "0.2 who comes to 0" in gateway.notes())
        # Two processes note in no certain order.
        assert {note for note in gateway.notes() if "Resize" not in note} == {
            *("0.2 MoveIn 1", "0.1 MoveOut 1", "0.1 Drain 0", "0.2 who comes to 0")
        }
        assert finished.text == "generation 2 runs in 1 slot; 3 connections moved, 3 closed"
        assert gateway.progress[1:] == [
            "slot 0: 3 connections moved, 1 refused by the new code and closed, "
            "2 that cannot move to be closed over 0.0 s"
        ]
        assert moving == [old]
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("command", [to.DrainSlot(Slot(2)), to.Scale(2)], ids=["drain", "scale"])
async def test_who_leaves_its_slot_empty_has_a_link_to_each_of_the_others(short_dir: Path, command: to.Command):
    async with supervised(short_dir, MOVE, slots=3) as gateway:
        await gateway.wait_ready()
        finished = await gateway.do(command)
        assert finished.text.endswith("; 3 connections moved, 3 closed")
        await wait_until(lambda: sum("who comes" in note for note in gateway.notes()) == 2)
        notes = [note for note in gateway.notes() if "Resize" not in note]
        assert [note for note in notes if note[0] == "2"] == ["2.1 MoveOut 1", "2.1 MoveOut 1", "2.1 Drain 0"]
        for slot in (0, 1):
            assert [note for note in notes if note[0] == str(slot)] == [
                f"{slot}.1 MoveIn 1",
                f"{slot}.1 who comes to {slot}",
            ]


@pytest.mark.parametrize("what", ["link_pair", "dup"])
async def test_without_descriptors_for_a_link_all_are_drained_and_the_log_says_why(
    short_dir: Path, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_more(*_: object) -> tuple[socket.socket, socket.socket]:
        raise OSError(errno.EMFILE, "Too many open files")

    send = WorkerProcess.send

    def send_to_a_full_link(self: WorkerProcess, message: Message, fd: int = -1) -> bool:
        return no_more() is None if fd >= 0 else send(self, message)

    async with supervised(short_dir, MOVE, slots=1) as gateway:
        await gateway.wait_ready()
        with monkeypatch.context() as patch:
            if what == "dup":
                patch.setattr(WorkerProcess, "send", send_to_a_full_link)
            else:
                patch.setattr(moves, "link_pair", no_more)
            finished = await gateway.do(to.Reload())
        assert finished.is_well
        assert [note for note in gateway.notes() if "Resize" not in note] == ["0.1 Drain 0"]
        assert "slot=0: nothing moves to slot 0: [Errno 24] Too many open files" in caplog.text
