"""Work that would block the event loop, done beside it: `Offload`, a bounded pool of processes and of threads.

The processes are fresh interpreters (never forks: the worker has threads and a uvloop), started when they are first
needed, and they die with the worker, however it dies.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import copy_context
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from stickygw.errors import OffloadFull

Kind = Literal["process", "thread"]
Start = Callable[[], "Future[Any]"]
"""Begins one call."""

BURIAL_SECONDS = 2.0
"""How long a stop waits for processes that were killed: milliseconds, but for one that the kernel cannot end now."""


class Offload:
    """Runs functions beside the event loop: at most `size` in processes and as many in threads at the same time, at
    most `queue` calls waiting or running in all."""

    def __init__(self, *, size: int, queue: int) -> None:
        self._queue = queue
        self._processes = _Processes(size)
        self._lanes = {"process": _Lane(size), "thread": _Lane(size)}

    async def run(self, function: Callable[..., Any], args: tuple[Any, ...], kind: Kind, timeout: float | None) -> Any:
        """See ``App.offload``."""
        if kind not in self._lanes:
            raise ValueError(f"kind is 'process' or 'thread', not {kind!r}")
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{_named(function)} is a coroutine function; offload calls plain functions")
        if kind == "process":
            start = partial(self._processes.start, _packed(function, args))
        else:
            start = partial(_start_thread, partial(copy_context().run, function, *args))
        if sum(lane.count for lane in self._lanes.values()) >= self._queue:
            raise OffloadFull(f"{self._queue} offloaded calls wait or run already (offload_queue)")
        async with asyncio.timeout(timeout):
            try:
                return await self._lanes[kind].add(start)
            except BrokenProcessPool:
                raise BrokenProcessPool(
                    f"the process that ran {_named(function)} ended before it answered: killed, or out of memory?"
                ) from None

    def stop(self) -> None:
        """Cancel what waits and cut what runs: processes are killed, and no exit waits for the calls in threads.
        Idempotent; blocks for the milliseconds in which the kernel ends processes, at most `BURIAL_SECONDS`."""
        for lane in self._lanes.values():
            lane.stop()
        self._processes.stop()


class _Lane:
    """Calls of one kind: up to `size` run, the others wait in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[asyncio.Future[Any], Start] = OrderedDict()
        self._running: set[asyncio.Future[Any]] = set()
        self._is_stopped = False

    @property
    def count(self) -> int:
        """How many calls wait or run. One that was given up runs until it ends."""
        return len(self._running) + len(self._waiting)

    def add(self, start: Start) -> asyncio.Future[Any]:
        """The result of a call that begins when it may. Cancelled while it waits, it never begins."""
        if self._is_stopped:
            raise RuntimeError("the worker has stopped: nothing is offloaded any more")
        result: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[result] = start
        result.add_done_callback(lambda result: self._waiting.pop(result, None))
        self._start_next()
        return result

    def stop(self) -> None:
        self._is_stopped = True
        for result in (*self._running, *self._waiting):
            result.cancel()
        self._waiting.clear()

    def _start_next(self) -> None:
        while self._waiting and len(self._running) < self._size and not self._is_stopped:
            result, start = self._waiting.popitem(last=False)
            if result.done():
                continue  # given up a moment ago
            try:
                call = start()
            except Exception as error:  # noqa: BLE001 - no process or thread to be had now; the caller hears of it
                result.set_exception(error)
                continue
            self._running.add(result)
            call.add_done_callback(partial(self._call_done, result))

    def _call_done(self, result: asyncio.Future[Any], call: Future[Any]) -> None:
        """In another thread."""
        if not self._is_stopped:  # else the loop may be closed
            self._loop.call_soon_threadsafe(self._settle, result, call)

    def _settle(self, result: asyncio.Future[Any], call: Future[Any]) -> None:
        self._running.discard(result)
        if not result.done():
            error = call.exception()
            if error is None:
                result.set_result(call.result())
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                result.set_exception(error)
            else:  # SystemExit and the like would end the worker, and no future takes a StopIteration
                result.set_exception(RuntimeError(f"the offloaded function raised {type(error).__name__}: {error}"))
        self._start_next()


class _Processes:
    """A pool of processes that is built when it is needed, and anew after one of them was killed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ProcessPoolExecutor | None = None
        self._burying: list[threading.Thread] = []
        """The threads of pools that are given up: each waits for the processes that were killed, and ends."""

    def start(self, packed: bytes) -> Future[Any]:
        """Run what `_packed` gave in one of the processes."""
        if self._pool is not None and not _are_alive(self._pool):
            self._give_up()  # the pool's own thread may not have noticed yet, and would fail this call too
        try:
            return self._built().submit(_run, packed)
        except BrokenProcessPool:
            self._give_up()
            return self._built().submit(_run, packed)

    def stop(self) -> None:
        """Kill the processes, and wait the moment that their burial takes.

        Else the interpreter's end may do it beside the pool's thread, and CPython 3.11 then writes to a pipe that this
        thread closes just now: a traceback in the log of a worker that ends in good order.
        """
        self._give_up()
        deadline = time.monotonic() + BURIAL_SECONDS
        for thread in self._burying:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _give_up(self) -> None:
        """Kill the processes. Never waits."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        running, own = _processes_of(pool), _threads_of(pool)
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.kill()
        self._burying = [one for one in (*self._burying, *own) if one.is_alive()]

    def _built(self) -> ProcessPoolExecutor:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._size, mp_context=spawn, initializer=_begin)
        return self._pool


def _processes_of(pool: ProcessPoolExecutor) -> tuple[BaseProcess, ...]:
    return tuple((pool._processes or {}).values())  # no public way before Python 3.14's `kill_workers`


def _threads_of(pool: ProcessPoolExecutor) -> tuple[threading.Thread, ...]:
    """The pool's own thread, where it has one yet; it forgets it when it is shut down."""
    thread: Any = pool._executor_manager_thread
    return () if thread is None else (thread,)


def _are_alive(pool: ProcessPoolExecutor) -> bool:
    return all(process.is_alive() for process in _processes_of(pool))


def _start_thread(call: Callable[[], Any]) -> Future[Any]:
    """Run `call` in a thread that no exit waits for, as it does, for ever if need be, for those of a
    `ThreadPoolExecutor`."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="offload", daemon=True).start()
    return future


def _named(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def _packed(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """The call as bytes for another process, which imports the function by its name. Raises `TypeError`."""
    try:
        pickle.dumps(function)
    except Exception as error:
        raise TypeError(
            f"{_named(function)} cannot be called in another process, which imports it by its name: offload a function "
            f"of a module, no lambda and no inner function, or use kind='thread' ({error})"
        ) from error
    try:
        return pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise TypeError(f"an argument of {_named(function)} cannot go to another process: {error}") from error


# --- in the processes -------------------------------------------------------------------------------------------------


def _begin() -> None:
    """A process begins: Ctrl-C is not its business, and it does not outlive its worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, name="die with the worker", daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by a worker"
    wait([parent.sentinel])
    os._exit(1)


def _run(packed: bytes) -> Any:
    # Unpacked here, not by the pool: there an application that cannot be imported would end the process.
    function, args = pickle.loads(packed)
    return function(*args)
