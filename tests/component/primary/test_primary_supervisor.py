"""Each slot has a worker: configured, noticed when ready, replaced when it is dead or hung."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from pathlib import Path

import pytest
from primary_rig import head_of, no_descriptor_left
from supervised_rig import SERVE, is_alive, supervised
from support.waiting import wait_until

from stickygw.primary.processes import start_process
from stickygw.routing.load import Load

TAKE = """
    def take():
        data, ancillary, *_ = link.recvmsg(1 << 17, 64)
        fd = array.array("i", ancillary[0][2])[0]
        say(Taken([decode(data).id]))
        socket.socket(fileno=fd).sendall(b"served")
"""


async def test_readiness_is_told_once_for_the_first_and_once_for_all(short_dir: Path):
    async with supervised(short_dir, SERVE) as gateway:
        await gateway.wait_ready()
        assert gateway.events.names == ["first ready", "all ready"]
        first = gateway.pid(0)
        os.kill(first, signal.SIGKILL)
        await gateway.wait_other(0, first)
        await gateway.wait_ready()
        assert gateway.events.names == ["first ready", "all ready"]
        assert gateway.events.failures == []


async def test_a_worker_leads_its_own_session_and_inherits_only_its_link(short_dir: Path):
    script = """
        ours = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2}
        ok = os.getsid(0) == os.getpid() and sum("socket" in name for name in ours) == 1
        say(Ready() if ok else Failed(repr(ours)))
        link.recv(1)
    """
    async with supervised(short_dir, script) as gateway:
        await wait_until(lambda: gateway.events.names or gateway.events.failures)
        assert gateway.events.failures == []


async def test_a_worker_learns_its_slot_its_generation_and_how_many_there_are(short_dir: Path):
    script = "note(configure.slot, configure.generation, configure.workers)"
    async with supervised(short_dir, script, SERVE, slots=3) as gateway:
        await gateway.wait_ready()
        assert sorted(gateway.notes()) == [f"{slot}.1 {slot} 1 3" for slot in range(3)]


@pytest.fixture
def ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is ending is killed soon; how soon otherwise, the fleet's own tests show."""
    monkeypatch.setattr("stickygw.supervision.roster.ENDING_SECONDS", 0.1)


# --- before any was ready ---------------------------------------------------------------------------------------------


async def test_an_application_that_never_starts_is_told_with_its_reason(short_dir: Path):
    async with supervised(short_dir, "say(Failed('no such module: chat')); sys.exit(4)") as gateway:
        await wait_until(lambda: gateway.events.failures)
        assert gateway.events.failures[0] == "no such module: chat"


async def test_a_worker_that_dies_before_any_was_ready_is_told_with_its_status(short_dir: Path):
    script = "os.kill(os.getpid(), signal.SIGKILL)"
    async with supervised(short_dir, script, slots=1) as gateway:
        await wait_until(lambda: gateway.events.failures)
        assert gateway.events.failures == ["exited with SIGKILL"]


async def test_a_worker_that_is_not_ready_in_time_is_ended_with_its_traceback(
    short_dir: Path, capfd: pytest.CaptureFixture[str]
):
    script = "import faulthandler; faulthandler.enable(); note(os.getpid()); time.sleep(60)"
    async with supervised(short_dir, script, slots=1, start_timeout=0.5) as gateway:
        await wait_until(lambda: gateway.events.failures)
        assert gateway.events.failures == ["not ready in 0.5 s (start_timeout)"]
        assert not is_alive(int(gateway.notes()[0].split()[1]))
    assert "Fatal Python error: Aborted" in capfd.readouterr().err


async def test_once_one_was_ready_a_failing_worker_ends_nothing(short_dir: Path, caplog: pytest.LogCaptureFixture):
    script = f"""
    if configure.slot == 1:
        while not os.path.exists(mark):
            time.sleep(0.01)
        say(Failed("slot 1 is cursed"))
        sys.exit(4)
    {SERVE.strip()}
    """
    async with supervised(short_dir, script) as gateway:
        await wait_until(lambda: gateway.rig.view(0).is_ready)
        gateway.mark.touch()
        await wait_until(lambda: caplog.text.count("slot 1 is cursed") >= 2)
        assert gateway.events.failures == []
        assert gateway.events.names == ["first ready"]
        assert gateway.rig.view(0).is_ready


# --- a worker's death -------------------------------------------------------------------------------------------------


async def test_an_offer_that_a_killed_worker_never_read_is_served_by_its_successor(short_dir: Path):
    script = f"""
    {TAKE.strip()}
    say(Ready())
    if not os.path.exists(mark):
        note("sleeps")
        time.sleep(60)
    take()
    """
    async with supervised(short_dir, script, slots=1) as gateway:
        await gateway.wait_ready()
        await wait_until(gateway.notes)
        client = await gateway.rig.client(head_of())
        await wait_until(lambda: gateway.rig.hand_overs.connections == 1)
        os.kill(gateway.pid(0), signal.SIGKILL)
        assert await client.read(6) == b"served"


async def test_a_link_that_a_forked_child_holds_open_does_not_hide_the_death(short_dir: Path):
    script = """
    if not os.path.exists(mark):
        note("forks")
        if os.fork() == 0:
            time.sleep(60)
        say(Ready())
        link.recv(1 << 17)
        os._exit(3)
    """
    async with supervised(short_dir, script, SERVE, slots=1) as gateway:
        await gateway.wait_ready()
        first, worker = gateway.pid(0), gateway.owner(0)
        assert worker is not None
        await gateway.rig.client(head_of())
        await gateway.wait_other(0, first)
        assert gateway.events.gone == [worker]
        os.killpg(first, signal.SIGKILL)  # the orphan is of the dead worker's session; nothing else ends it here


@pytest.mark.usefixtures("ends_soon")
async def test_a_worker_that_closes_its_link_and_lives_on_is_replaced(short_dir: Path):
    script = "say(Ready()); link.close(); time.sleep(60)"
    async with supervised(short_dir, script, slots=1) as gateway:
        await wait_until(lambda: gateway.generations() == [(0, 1)] and gateway.events.names)
        [first] = [member.id for member in gateway.supervisor.fleet.members]
        pid = gateway.supervisor.pid_of(first)
        await wait_until(lambda: gateway.events.gone == [first])
        assert pid is not None
        assert not is_alive(pid)
        await wait_until(lambda: gateway.generations() == [(0, 1)])


@pytest.mark.parametrize("left", [0, 1], ids=["no link", "no process"])
async def test_a_slot_whose_restart_finds_no_descriptor_is_tried_again(
    short_dir: Path, caplog: pytest.LogCaptureFixture, left: int
):
    async with supervised(short_dir, SERVE) as gateway:
        await gateway.wait_ready()
        count = len(os.listdir("/proc/self/fd"))
        with no_descriptor_left(but=left):
            os.kill(gateway.pid(0), signal.SIGKILL)
            await wait_until(lambda: "slot=0: cannot start a process: [Errno 24] Too many open files" in caplog.text)
        await gateway.wait_ready()
        assert len(os.listdir("/proc/self/fd")) == count
        assert gateway.events.failures == []


async def test_a_child_that_cannot_be_watched_is_killed(monkeypatch: pytest.MonkeyPatch):
    started: list[int] = []

    def no_descriptor(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_descriptor)
    with pytest.raises(OSError, match="Too many open files"):
        start_process(["sleep", "60"], on_exit=lambda status: None)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)  # dead, and reaped


# --- a worker that says nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["time.sleep(60)", "os.kill(os.getpid(), signal.SIGSTOP)"], ids=["blocked", "stopped"])
async def test_a_silent_worker_is_ended_and_its_unread_offers_are_served_by_its_successor(
    short_dir: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], way: str
):
    script = f"""
    import faulthandler
    faulthandler.enable()
    {TAKE.strip()}
    say(Ready())
    if not os.path.exists(mark):
        note("hangs")
        {way}
    take()
    take()
    time.sleep(60)
    """
    async with supervised(short_dir, script, slots=1, heartbeat_timeout=0.6) as gateway:
        await gateway.wait_ready()
        first = gateway.pid(0)
        clients = [await gateway.rig.client(head_of()) for _ in range(2)]
        assert [await client.read(6) for client in clients] == [b"served"] * 2
        assert not is_alive(first)
    errors = [record.getMessage() for record in caplog.records if record.name == "stickygw.supervisor"]
    assert errors[0].startswith("worker hung slot=0: its event loop stood still for 0.")
    ended_by_abort = way.startswith("time")
    assert ("worker killed slot=0" in caplog.text) != ended_by_abort  # no signal but SIGKILL reaches a stopped one
    assert "worker died slot=0: its event loop stood still for 0." in caplog.text
    assert ("Fatal Python error: Aborted" in capfd.readouterr().err) == ended_by_abort


@pytest.mark.usefixtures("ends_soon")
async def test_a_silent_worker_that_ignores_sigabrt_is_killed(short_dir: Path, caplog: pytest.LogCaptureFixture):
    script = f"""
    signal.signal(signal.SIGABRT, lambda *_: note("SIGABRT"))
    say(Ready())
    if not os.path.exists(mark):
        say(Blocked("chat.py:7 in said", 0.25))
        note("hangs")
        while True:
            time.sleep(60)
    {SERVE.strip()}
    """
    async with supervised(short_dir, script, slots=1, heartbeat_timeout=0.3) as gateway:
        await wait_until(lambda: gateway.events.gone)
        assert gateway.notes() == ["0.1 hangs", "0.1 SIGABRT"]
    assert "stood still for 0.3 s, in chat.py:7 in said; it is ended" in caplog.text
    assert "worker killed slot=0: it did not end when it was asked to" in caplog.text


async def test_a_silent_worker_is_ended_with_what_it_started(short_dir: Path):
    script = f"""
    if not os.path.exists(mark):
        child = os.fork()
        if child:
            note(child)
            say(Ready())
        time.sleep(60)
    say(Ready())
    {SERVE.strip()}
    """
    async with supervised(short_dir, script, slots=1, heartbeat_timeout=0.3) as gateway:
        await wait_until(lambda: gateway.events.gone)
        child = int(gateway.notes()[0].split()[1])
        await wait_until(lambda: not is_alive(child))


async def test_a_worker_that_answers_no_offer_but_beats_is_left_alone(
    short_dir: Path, caplog: pytest.LogCaptureFixture
):
    script = """
    say(Ready())
    while True:
        beat()
        time.sleep(0.05)
    """
    async with supervised(short_dir, script, slots=1, heartbeat_timeout=0.5, slot_wait=0.05) as gateway:
        await gateway.wait_ready()
        first = gateway.owner(0)
        assert first is not None
        await gateway.rig.client(head_of())
        await wait_until(lambda: not gateway.rig.view(0).is_ready)  # it stalls, and gets no more
        until = asyncio.get_running_loop().time() + 0.8
        await wait_until(lambda: asyncio.get_running_loop().time() > until)  # time itself is under test
        assert gateway.owner(0) == first
        vital = gateway.supervisor.vitals.of(first)
        assert vital is not None
        assert vital.beat.served == 7
        assert gateway.rig.view(0).load == Load(lag=0.125, queue=3, cpu=0.5, rss=1 << 20)
    assert "worker hung" not in caplog.text


async def test_workers_are_not_blamed_for_a_pause_of_the_primary(short_dir: Path, caplog: pytest.LogCaptureFixture):
    script = """
    say(Ready())
    while True:
        beat()
        time.sleep(0.05 if configure.slot else 1.0)
    """
    async with supervised(short_dir, script, heartbeat_timeout=2.0) as gateway:
        await gateway.wait_ready()
        loop, worker = asyncio.get_running_loop(), gateway.owner(0)
        assert worker is not None

        def heard() -> float:
            vital = gateway.supervisor.vitals.of(worker)
            return vital.at if vital is not None else loop.time()

        # Nearly a second after its last heartbeat, while the other one's come and go, we stand still.
        await wait_until(lambda: loop.time() - heard() > 0.85)
        time.sleep(1.3)  # noqa: ASYNC251 - this is the pause
        before = loop.time()
        await wait_until(lambda: heard() > before)
        assert gateway.owner(0) == worker
        assert gateway.events.gone == []
    assert "the primary itself stood still for " in caplog.text
    assert "worker hung" not in caplog.text
