"""A save of the application's Python files is one change; whatever else is written is none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from support.waiting import wait_until

from stickygw.primary.watch import changes, watched_folders


class Seen:
    """The changes so far."""

    def __init__(self) -> None:
        self.changes: list[set[Path]] = []

    @property
    def files(self) -> set[Path]:
        return set().union(*self.changes)


@asynccontextmanager
async def watching(folders: Iterable[Path], ignored: Iterable[Path] = ()) -> AsyncIterator[Seen]:
    """`Seen` of a watch that has begun: it tells of a file that is written until it does."""
    seen, folders = Seen(), list(folders)

    async def watch() -> None:
        async for changed in changes(folders, ignored=ignored):
            seen.changes.append(changed)

    task = asyncio.create_task(watch())
    probe = folders[0] / "probe.py"

    def has_begun() -> bool:
        probe.write_text("")
        return bool(seen.changes)

    await wait_until(has_begun)
    await tell_apart(seen, folders[0])
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def tell_apart(seen: Seen, folder: Path) -> None:
    """Wait until what was written so far was told, and forget it."""
    last = folder / f"last{os.urandom(4).hex()}.py"
    last.write_text("")
    await wait_until(lambda: last in seen.files)
    seen.changes.clear()


def write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x = 1")
    return file


async def test_python_files_in_all_folders_and_below_are_told_made_changed_and_removed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    old = write(one / "old.py")
    two.mkdir()
    async with watching([one, two]) as seen:
        new = write(two / "new.py")
        old.unlink()
        await wait_until(lambda: seen.files == {new, old})
        deep = write(one / "package" / "module.py")
        await wait_until(lambda: deep in seen.files or deep.write_text("y"))
        saved = one / "saved.py"
        write(one / "saved.py~").rename(saved)  # as editors do
        await wait_until(lambda: saved in seen.files)


async def test_a_save_of_many_files_is_one_change(tmp_path: Path) -> None:
    async with watching([tmp_path]) as seen:
        files = {write(tmp_path / f"module{number}.py") for number in range(50)}
        await wait_until(lambda: seen.files >= files)
        assert len(seen.changes) == 1


@pytest.mark.parametrize("name", ["page.html", "module.pyc", "data.py.txt"])
async def test_other_files_are_no_change(tmp_path: Path, name: str) -> None:
    async with watching([tmp_path]) as seen:
        write(tmp_path / name)
        file = write(tmp_path / "real.py")
        await wait_until(lambda: file in seen.files)
        assert seen.files == {file}


async def test_folders_that_hold_no_application_are_ignored_below_the_watched_one_only(tmp_path: Path) -> None:
    inside = tmp_path / ".venv" / "project"
    folders = [inside / name for name in (".venv/lib", ".git", "package/__pycache__", "node_modules/x", "run")]
    for folder in folders:
        folder.mkdir(parents=True)
    async with watching([inside], ignored=[inside / "run"]) as seen:
        for folder in folders:
            write(folder / "module.py")
        file = write(inside / "package" / "module.py")
        await wait_until(lambda: file in seen.files)
        assert seen.files == {file}


def open_watches() -> int:
    """The kernel's watches that this process holds."""
    links = (file for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
    return sum(os.readlink(file) == "anon_inode:inotify" for file in links)


def test_a_cancelled_watch_leaves_neither_descriptor_nor_thread(tmp_path: Path) -> None:
    async def watch() -> None:
        async with watching([tmp_path]):
            assert open_watches() == 1
        await wait_until(lambda: open_watches() == 0)

    before = threading.enumerate()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(watch())
    for thread in set(threading.enumerate()) - set(before):
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("target", "folders"),
    [
        ("chat.app:app", ["/srv/app"]),
        ("/srv/app/chat.py:app", ["/srv/app"]),
        ("/srv/app/chat/app.py:app", ["/srv/app"]),
        ("/srv/other/app.py:app", ["/srv/app", "/srv/other"]),
        ("/srv/app.py:app", ["/srv/app", "/srv"]),
    ],
)
def test_the_current_folder_is_watched_and_a_files_own(target: str, folders: list[str]) -> None:
    assert watched_folders(target, Path("/srv/app")) == [Path(folder) for folder in folders]
