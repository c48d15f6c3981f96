"""What is asked of the supervisor by signals and changed files, and what the service manager hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.waiting import loop_turns, wait_until

from stickygw.primary.steering import Steering
from stickygw.supervision import events as to

DONE = to.Finished(1, "generation 2 runs in 2 slots", is_well=True)
FAILED = to.Finished(1, "slot 0 got no new worker", is_well=False)


class FakeSupervisor:
    """Keeps what it is asked; the test says what becomes of it."""

    def __init__(self) -> None:
        self.fleet = SimpleNamespace(slots=[0, 1])
        self.asked: list[to.Command] = []
        self.finished: list[asyncio.Future[to.Finished]] = []
        self.refuses = False

    def ask(self, command: to.Command, on_progress: Callable[[str], None] | None = None) -> asyncio.Future[to.Finished]:
        self.asked.append(command)
        self.finished.append(asyncio.get_running_loop().create_future())
        if self.refuses:
            self.finished[-1].set_result(FAILED)
        if on_progress is not None:
            on_progress("slot 0: ready")
        return self.finished[-1]


class FakeNotifier:
    """Keeps its words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def ready(self) -> None:
        self.words.append("READY")

    def reloading(self) -> None:
        self.words.append("RELOADING")


class Files:
    """Stands for `changes`: gives the sets of files that the test puts in, or raises the error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changed: asyncio.Queue[set[Path] | Exception] = asyncio.Queue()
        self.watched: list[Path] = []
        monkeypatch.setattr("stickygw.primary.steering.changes", self._changes)

    async def _changes(self, folders: Iterable[Path], *, ignored: Iterable[Path]) -> AsyncIterator[set[Path]]:
        self.watched += [*folders, *ignored]
        while True:
            files = await self.changed.get()
            if isinstance(files, Exception):
                raise files
            yield files


class Steered:
    """`Steering` between its two neighbours."""

    def __init__(self) -> None:
        self.supervisor = FakeSupervisor()
        self.notifier = FakeNotifier()
        self.steering = Steering(self.supervisor, self.notifier)  # type: ignore[arg-type]


@pytest.fixture
async def steered() -> AsyncIterator[Steered]:
    made = Steered()
    yield made
    await made.steering.close()


@pytest.mark.parametrize("outcome", [DONE, FAILED], ids=["done", "failed"])
async def test_the_service_manager_hears_of_a_reload_and_of_its_end(steered: Steered, outcome: to.Finished):
    progress: list[str] = []
    finished = steered.steering.reload(progress.append)
    assert steered.supervisor.asked == [to.Reload()]
    assert progress == ["slot 0: ready"]
    await loop_turns()
    assert steered.notifier.words == ["RELOADING"]
    steered.supervisor.finished[0].set_result(outcome)
    assert await finished == outcome
    await loop_turns()
    assert steered.notifier.words == ["RELOADING", "READY"]


async def test_of_two_reloads_the_last_one_ends_the_reloading(steered: Steered):
    for _ in range(2):
        steered.steering.reload()
    for finished in steered.supervisor.finished:
        assert "READY" not in steered.notifier.words
        finished.set_result(DONE)
        await loop_turns()
    assert steered.notifier.words == ["RELOADING", "RELOADING", "READY"]


async def test_a_reload_that_is_refused_makes_nobody_ready(steered: Steered):
    steered.supervisor.refuses = True  # as before the first worker is ready
    assert await steered.steering.reload() == FAILED
    await loop_turns()
    assert steered.notifier.words == []


async def test_a_reload_that_the_stop_ends_does_not_say_ready(steered: Steered):
    steered.steering.reload()
    await steered.steering.close()
    steered.supervisor.finished[0].set_result(FAILED)
    await loop_turns()
    assert steered.notifier.words == ["RELOADING"]


@pytest.mark.parametrize("step", [1, -1])
async def test_a_step_is_one_slot_more_or_fewer_than_there_are_by_then(steered: Steered, step: int):
    steered.steering.scale_by(step)
    assert steered.supervisor.asked == [to.ScaleBy(step)]
    assert steered.notifier.words == []


async def test_changed_files_reload_once_at_a_time(
    steered: Steered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "stickygw.supervisor")
    files = Files(monkeypatch)
    steered.steering.watch([Path("/app")], ignored=[Path("/app/run")])
    await files.changed.put({Path("/app/rooms.py"), Path("/app/chat.py")})
    await wait_until(lambda: steered.supervisor.asked)
    assert files.watched == [Path("/app"), Path("/app/run")]
    assert "reloading: chat.py, rooms.py changed" in caplog.text
    await files.changed.put({Path("/app/chat.py")})
    await loop_turns()
    assert steered.supervisor.asked == [to.Reload()]
    steered.supervisor.finished[0].set_result(FAILED)  # a mistake in the file ends no watching
    await wait_until(lambda: steered.supervisor.asked == [to.Reload()] * 2)
    assert steered.notifier.words[:3] == ["RELOADING", "READY", "RELOADING"]


async def test_a_watch_that_fails_is_told_and_harms_nothing(
    steered: Steered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    files = Files(monkeypatch)
    steered.steering.watch([Path("/app")], ignored=[])
    await files.changed.put(OSError(28, "No space left on device"))
    await wait_until(lambda: "changed files are not watched any more" in caplog.text)
    assert "No space left on device" in caplog.text
    steered.steering.reload()
    assert steered.supervisor.asked == [to.Reload()]


@pytest.mark.parametrize("is_reloading", [False, True])
async def test_after_the_close_no_change_reloads(steered: Steered, monkeypatch: pytest.MonkeyPatch, is_reloading: bool):
    files = Files(monkeypatch)
    steered.steering.watch([Path("/app")], ignored=[])
    if is_reloading:
        await files.changed.put({Path("/app/chat.py")})
        await wait_until(lambda: steered.supervisor.asked)
    before = len(steered.supervisor.asked)
    await steered.steering.close()
    await files.changed.put({Path("/app/chat.py")})
    await loop_turns()
    assert len(steered.supervisor.asked) == before
    assert "READY" not in steered.notifier.words
    await steered.steering.close()
