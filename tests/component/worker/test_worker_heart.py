"""The heartbeat: what it measures, and that a link which is full costs one beat and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack

import pytest
from support.waiting import wait_until

from stickygw import App
from stickygw.observability.memory import resident_bytes
from stickygw.testing import AppClient
from stickygw.wire.link import Blocked, Heartbeat
from stickygw.worker.heart import Heart, Pulse
from stickygw.worker.intake import Intake

StartClient = Callable[..., Awaitable[AppClient]]
StartHeart = Callable[["Link"], Heart]


def test_the_lag_is_the_worst_lateness_since_the_last_beat() -> None:
    pulse = Pulse(now=100.0, cpu=5.0)
    for due, now in [(100.1, 100.1), (100.2, 100.7), (100.8, 100.9)]:
        pulse.tick(due, now)
    assert pulse.lag == pytest.approx(0.5)
    pulse.begin(101.0, 5.0)
    assert pulse.lag == 0.0
    pulse.tick(101.1, 101.0999)  # timers may come a moment early
    assert pulse.lag == 0.0


def test_the_cpu_share_is_cpu_time_over_wall_time_since_the_last_beat() -> None:
    pulse = Pulse(now=100.0, cpu=5.0)
    assert pulse.cpu_share(now=102.0, cpu=6.0) == pytest.approx(0.5)
    pulse.begin(102.0, 6.0)
    assert pulse.cpu_share(now=103.0, cpu=7.5) == pytest.approx(1.5), "two threads"
    assert pulse.cpu_share(now=102.0, cpu=6.0) == 0.0, "no time has passed"


def test_resident_memory_grows_with_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resident_bytes()
    held = b"x" * (32 << 20)
    assert resident_bytes() - before > 24 << 20
    del held

    def refuse(*arguments: object) -> None:
        raise OSError("no descriptor is left")

    monkeypatch.setattr("builtins.open", refuse)
    assert resident_bytes() > 24 << 20, "the most there ever was"


class Link:
    """Takes beats unless it is full."""

    is_closed = False

    def __init__(self) -> None:
        self.is_full = False
        self.beats: list[Heartbeat] = []
        self.refused = 0
        self.blocked: list[Blocked] = []

    def send(self, message: Heartbeat) -> bool:
        if self.is_full:
            self.refused += 1
            return False
        self.beats.append(message)
        return True

    def send_from_thread(self, message: Blocked) -> bool:
        self.blocked.append(message)
        return True


@pytest.fixture
async def link() -> Link:
    return Link()


@pytest.fixture
async def start_heart(app_client: StartClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartHeart]:
    """Starts a heart that beats into a link until the test is over."""
    monkeypatch.setattr("stickygw.worker.heart.TICK_SECONDS", 0.01)
    monkeypatch.setattr("stickygw.worker.heart.HEARTBEAT_SECONDS", 0.05)
    client = await app_client(App())
    client.runtime.tells.report = {"games": 17}
    with ExitStack() as stack:

        def start(link: Link) -> Heart:
            heart = Heart(link, client.runtime, Intake(link, client.runtime))  # type: ignore[arg-type]
            heart.start()
            stack.callback(heart.stop)
            return heart

        yield start


@pytest.fixture
async def heart(start_heart: StartHeart, link: Link) -> Heart:
    return start_heart(link)


async def test_it_beats_until_it_is_stopped(heart: Heart, link: Link, start_heart: StartHeart) -> None:
    await wait_until(lambda: len(link.beats) >= 3)
    beat = link.beats[-1]
    assert beat.report == {"games": 17}
    assert beat.rss > 1 << 20
    assert beat.cpu >= 0.0
    heart.stop()
    count = len(link.beats)
    other = Link()
    start_heart(other)
    await wait_until(lambda: len(other.beats) >= 4)
    assert len(link.beats) == count


async def test_a_full_link_leaves_a_beat_out_and_its_lag_goes_with_the_next(heart: Heart, link: Link) -> None:
    link.is_full = True
    time.sleep(0.3)  # noqa: ASYNC251 - the blocked loop that this is about
    await wait_until(lambda: link.refused >= 2)
    assert link.beats == []
    link.is_full = False
    await wait_until(lambda: link.beats)
    assert link.beats[0].lag > 0.2
    await wait_until(lambda: len(link.beats) >= 2)
    assert link.beats[1].lag < link.beats[0].lag


async def test_a_beat_that_goes_wrong_is_not_the_last(
    heart: Heart, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context["exception"]))

    def fail() -> int:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr("stickygw.worker.heart.resident_bytes", fail)
        await wait_until(lambda: failed)
    await wait_until(lambda: link.beats)
