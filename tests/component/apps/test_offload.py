"""Work beside the event loop: bounded, in order, and gone with its worker."""

import asyncio
import contextvars
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from support.waiting import wait_until

from stickygw import App, OffloadFull
from stickygw.apps.native.offload import Offload
from stickygw.testing import AppClient

StartClient = Callable[..., Awaitable[AppClient]]
place = contextvars.ContextVar("place", default="nowhere")


@pytest.fixture
async def pool() -> AsyncIterator[Callable[..., Offload]]:
    made: list[Offload] = []

    def make(size: int = 1, queue: int = 64) -> Offload:
        made.append(Offload(size=size, queue=queue))
        return made[-1]

    yield make
    for offload in made:
        offload.stop()
    await wait_until(lambda: not multiprocessing.active_children())


def call(offload: Offload, function: Callable[..., Any], *args: Any, kind: str = "process") -> asyncio.Task[Any]:
    return asyncio.ensure_future(offload.run(function, args, kind, None))  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
        return False


def is_to_be_buried(pid: int) -> bool:
    """Whether a child can be waited for, or has been. It shows as a zombie before: as soon as its first thread ends."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


# Called in other processes


def where(*args: Any) -> tuple[int, Any]:
    return os.getpid(), args


def fail(kind: type[BaseException]) -> None:
    raise kind("on purpose")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spin(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    while True:
        pass


def answer_to_sigint() -> Any:
    return signal.getsignal(signal.SIGINT)


def no_pickle() -> Any:
    return lambda: None


async def a_coroutine() -> None: ...


# In a process


async def test_a_function_runs_in_a_process_that_serves_again(app_client: StartClient) -> None:
    app = App()
    await app_client(app)
    first, args = await app.offload(where, 1, {"b": [2]})
    assert first != os.getpid()
    assert args == (1, {"b": [2]})
    assert (await app.offload(where))[0] == first
    assert await app.offload(answer_to_sigint) == signal.SIG_IGN


async def test_what_the_function_raises_is_raised(pool: Callable[..., Offload]) -> None:
    offload = pool()
    for kind in ("process", "thread"):
        with pytest.raises(LookupError, match="on purpose"):
            await call(offload, fail, LookupError, kind=kind)
        for error in (SystemExit, StopIteration):
            with pytest.raises(RuntimeError, match=f"raised {error.__name__}: on purpose"):
                await call(offload, fail, error, kind=kind)
    assert (await call(offload, where, 1))[1] == (1,)


async def test_what_cannot_go_to_another_process_is_a_type_error_at_once(pool: Callable[..., Offload]) -> None:
    offload = pool()
    with pytest.raises(TypeError, match=r"<lambda> cannot be called in another process.*kind='thread'"):
        await call(offload, lambda: None)
    with pytest.raises(TypeError, match=r"an argument of .*where cannot go"):
        await call(offload, where, threading.Lock())
    for kind in ("process", "thread"):
        with pytest.raises(TypeError, match="coroutine function"):
            await call(offload, a_coroutine, kind=kind)
    with pytest.raises(ValueError, match="kind is"):
        await call(offload, where, kind="fork")
    assert not multiprocessing.active_children(), "no process was needed for that"
    with pytest.raises(Exception, match="pickle"):
        await call(offload, no_pickle)


async def test_a_killed_process_fails_its_own_call_and_another_takes_the_next(pool: Callable[..., Offload]) -> None:
    offload = pool()
    dying, waiting = call(offload, die), call(offload, where, 1)
    with pytest.raises(BrokenProcessPool, match=r"that ran .*die ended"):
        await dying
    pid, args = await waiting
    assert args == (1,)
    os.kill(pid, signal.SIGKILL)  # while it has nothing to do
    await wait_until(lambda: is_to_be_buried(pid))
    assert (await call(offload, where, 2))[1] == (2,)


async def test_a_stop_kills_what_runs_and_cancels_what_waits(pool: Callable[..., Offload], tmp_path: Path) -> None:
    offload, started = pool(), tmp_path / "started"
    running, waiting = call(offload, spin, str(started)), call(offload, where)
    await wait_until(lambda: started.exists() and started.read_text())
    pid = int(started.read_text())
    offload.stop()
    for task in (running, waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    await wait_until(lambda: not is_alive(pid))
    with pytest.raises(RuntimeError, match="has stopped"):
        await call(offload, where)


async def test_a_stop_leaves_no_thread_that_the_interpreters_end_would_wake(pool: Callable[..., Offload]) -> None:
    before = set(threading.enumerate())
    offload = pool()
    pid = await call(offload, os.getpid)
    os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: is_to_be_buried(pid))
    await call(offload, os.getpid)  # in another pool
    offload.stop()
    assert set(threading.enumerate()) <= before


async def test_the_application_leaves_no_process_behind(tmp_path: Path) -> None:
    app, started = App(), tmp_path / "started"
    async with AppClient(app):
        with pytest.raises(TimeoutError):
            await asyncio.gather(app.offload(spin, str(started), timeout=60), _cut_when_there(started))
        pid = int(started.read_text())
        assert is_alive(pid), "what runs goes on"
    await wait_until(lambda: not is_alive(pid))
    await wait_until(lambda: not multiprocessing.active_children())


async def _cut_when_there(file: Path) -> None:
    await wait_until(lambda: file.exists() and file.read_text())
    raise TimeoutError


# In a thread


async def test_a_thread_shares_objects_and_sees_the_context(pool: Callable[..., Offload]) -> None:
    place.set("here")
    offload, kept = pool(), []
    assert await call(offload, lambda: (kept.append(threading.current_thread()), place.get())[1], kind="thread") == (
        "here"
    )
    assert kept != [threading.main_thread()]
    assert kept[0].daemon, "no exit waits for it"


# Both


@pytest.mark.parametrize("size", [1, 2])
async def test_so_many_run_at_the_same_time_and_the_others_wait_in_order(
    pool: Callable[..., Offload], size: int
) -> None:
    offload, gate, begun = pool(size), threading.Event(), []

    def work(number: int) -> int:
        begun.append(number)
        gate.wait(10)
        return number

    calls = [call(offload, work, number, kind="thread") for number in range(5)]
    await wait_until(lambda: len(begun) == size)
    await asyncio.sleep(0)
    assert sorted(begun) == list(range(size))
    gate.set()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
    if size == 1:
        assert begun == [0, 1, 2, 3, 4]


async def test_more_than_the_queue_takes_is_refused_at_once(pool: Callable[..., Offload]) -> None:
    offload, gate = pool(queue=3), threading.Event()
    calls = [call(offload, gate.wait, 10, kind="thread") for _ in range(3)]
    await asyncio.sleep(0)
    for kind in ("thread", "process"):
        with pytest.raises(OffloadFull, match="3 offloaded calls"):
            await call(offload, where, kind=kind)
    gate.set()
    assert await asyncio.gather(*calls) == [True, True, True]
    assert await call(offload, where, kind="thread") == (os.getpid(), ())


async def test_a_call_that_is_given_up_frees_its_place_and_never_begins(pool: Callable[..., Offload]) -> None:
    offload, gate, begun = pool(queue=2), threading.Event(), []
    first, second = (
        call(offload, lambda number=number: (begun.append(number), gate.wait(10)), kind="thread") for number in (1, 2)
    )
    await wait_until(lambda: begun == [1])
    second.cancel()
    await asyncio.wait([second])
    third = call(offload, begun.append, 3, kind="thread")
    first.cancel()
    await asyncio.wait([first])
    with pytest.raises(OffloadFull):  # the first runs on
        await call(offload, where, kind="thread")
    gate.set()
    await third
    assert begun == [1, 3]


async def test_the_loop_turns_while_a_process_computes(app_client: StartClient, tmp_path: Path) -> None:
    app, started = App(), tmp_path / "started"

    @app.on_message("/heavy")
    async def heavy(conn, message):
        await app.offload(spin, str(started))

    @app.on_message("/light")
    def light(conn, message):
        conn.send(message)

    client = await app_client(app)
    async with client.connect("/heavy") as heavy_one, client.connect("/light") as light_one:
        await heavy_one.send("go")
        await wait_until(lambda: started.exists() and started.read_text())
        await light_one.send("x")
        assert await light_one.receive() == "x"
        os.kill(int(started.read_text()), signal.SIGKILL)
        assert await heavy_one.wait_closed() == 1011
