"""Who blocks a loop is named, when it is worth telling; and the loop says itself how long it was blocked."""

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from pathlib import Path

import pytest
from support.waiting import wait_until

import stickygw
from stickygw.ipc.link import Link, link_pair
from stickygw.wire.link import Blocked, Message
from stickygw.worker.loop_watch import MAX_WHERE, Alarm, LoopWatch, place


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([0.25, 0.5, 0.99], []),
        ([0.99, 1.0, 1.25, 1.9, 2.1, 3.9, 4.1, 8.0], [1.0, 2.1, 4.1, 8.0]),
        ([5.0, 7.9, 8.1], [5.0, 8.1]),  # the thread itself did not run
    ],
)
def test_a_block_is_told_after_a_second_and_at_each_doubling(looks: list[float], told: list[float]) -> None:
    alarm = Alarm()
    assert [look for look in looks if alarm.is_due(0.0, look)] == told


def test_the_next_block_is_told_from_its_first_second_on() -> None:
    alarm = Alarm()
    assert alarm.is_due(100.0, 105.0)
    assert not alarm.is_due(105.5, 106.0)
    assert alarm.is_due(105.5, 106.6)


# Where a thread stands

OURS = f"{Path(stickygw.__file__).parent}/apps/native/turns.py"
STDLIB = f"{sysconfig.get_path('stdlib')}/selectors.py"
INSTALLED = f"{sysconfig.get_path('purelib')}/redis/client.py"


def place_in(*calls: tuple[str, str]) -> str:
    """The place of a thread in which these functions of these files call one another, the outermost first."""
    told: list[str] = []
    # A thread's first functions are the standard library's, as a worker's are.
    chain: list[object] = [lambda rest: told.append(place(sys._getframe(1)))]
    for name, file in reversed(calls):
        names: dict[str, object] = {}
        exec(compile(f"def {name}(rest):\n    rest[0](rest[1:])\n", file, "exec"), names)
        chain.insert(0, names[name])
    thread = threading.Thread(target=chain[0], args=(chain[1:],))  # type: ignore[arg-type]
    thread.start()
    thread.join()
    return told[0]


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([("_call", OURS), ("spin", "/srv/app.py")], "spin (app.py:2)"),
        (
            [("_call", OURS), ("spin", "/srv/app.py"), ("step", "/srv/app.py"), ("factorise", "/srv/maths.py")],
            "spin (app.py:2), now in factorise (maths.py:2)",
        ),
        (
            [("_call", OURS), ("ask", "/srv/app.py"), ("select", STDLIB)],
            "ask (app.py:2), now in select (selectors.py:2)",
        ),
        ([("_call", OURS), ("said", "/srv/app.py"), ("send", OURS)], "said (app.py:2), now in send (turns.py:2)"),
        # A library that calls the application back, or stands around it, is not the handler.
        (
            [("_call", OURS), ("wrapper", INSTALLED), ("spin", "/srv/app.py"), ("get", INSTALLED)],
            "spin (app.py:2), now in get (client.py:2)",
        ),
        # The application itself is installed.
        ([("_call", OURS), ("get", INSTALLED)], "get (client.py:2)"),
        ([("_call", OURS), ("select", STDLIB)], "no handler, now in select (selectors.py:2)"),
    ],
)
def test_the_handler_is_named_and_the_line_where_it_stands(calls: list[tuple[str, str]], told: str) -> None:
    assert place_in(*calls) == told


def test_a_place_is_short_whatever_functions_are_called() -> None:
    assert len(place_in(("x" * 1000, "/srv/app.py"))) == MAX_WHERE


def test_a_thread_that_is_over_stands_nowhere() -> None:
    assert place(None) == "a thread that is over"


# The watch


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_blocked_loop_is_told_while_it_is_blocked_and_says_its_length_afterwards(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.worker.loop_watch.BLOCKED_SECONDS", 0.1)
    monkeypatch.setattr("stickygw.worker.loop_watch.LOOK_SECONDS", 0.01)
    # A logger that does not propagate, as ours, is not seen by caplog.
    monkeypatch.setattr(logging.getLogger("stickygw"), "propagate", True)
    ours, theirs = link_pair()
    received: list[Message] = []
    reader = Link(ours, on_message=lambda message, fd: received.append(message), on_closed=lambda: None)
    link = Link(theirs, on_message=lambda message, fd: None, on_closed=lambda: None)
    told: list[tuple[Blocked, bool]] = []
    is_blocked = False

    def tell(message: Blocked) -> None:
        assert link.send_from_thread(message)
        told.append((message, is_blocked))

    watch = LoopWatch(tell)
    watch.start()
    try:
        is_blocked = True
        block(0.5)
        is_blocked = False
        watch.turned()
        watch.turned()
        assert len(told) >= 2, "at 0.1 s, and at each doubling"
        assert all(was_blocked for _, was_blocked in told)
        assert "now in block" in told[0][0].where
        assert 0.1 <= told[0][0].seconds < told[-1][0].seconds
        await wait_until(lambda: received == [message for message, _ in told])
    finally:
        watch.stop()
        link.close()
        reader.close()
    lines = [record.getMessage() for record in caplog.records if record.name == "stickygw.worker"]
    assert f"blocked for {told[0][0].seconds:.1f} s by " in lines[0]
    assert [line for line in lines if "turns again; it was blocked for 0." in line] == lines[-1:]


async def test_a_loop_that_turns_is_left_alone_and_the_thread_ends_with_the_watch(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stickygw.worker.loop_watch.LOOK_SECONDS", 0.01)
    monkeypatch.setattr(logging.getLogger("stickygw"), "propagate", True)
    told: list[Blocked] = []
    watch = LoopWatch(told.append)
    watch.start()
    for _ in range(10):
        await asyncio.sleep(0.01)
        watch.turned()
    assert [thread.name for thread in threading.enumerate()].count("loop watch") == 1
    watch.stop()
    assert "loop watch" not in [thread.name for thread in threading.enumerate()]
    assert told == []
    assert caplog.records == []


# Sending from the thread


async def test_a_link_that_is_full_or_closed_takes_nothing_from_a_thread_and_raises_nothing() -> None:
    ours, theirs = link_pair()
    link = Link(theirs, on_message=lambda message, fd: None, on_closed=lambda: None)
    message = Blocked("x" * 1000, 1.0)
    count = 0
    while link.send_from_thread(message):
        count += 1
    assert count > 0
    link.close()
    assert not await asyncio.to_thread(link.send_from_thread, message)
    ours.close()
