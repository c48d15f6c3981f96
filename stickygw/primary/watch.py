"""Which Python files of the application have changed: `watch` makes a reload of them, for development."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path

IGNORED_FOLDERS = frozenset({".venv", ".git", "__pycache__", "node_modules"})
"""Nobody edits an application in there."""

QUIET_MS = 100
"""Changes with less than this between them are one: a save of many files, a checkout."""
LONGEST_MS = 2000
"""But what has changed for so long is told."""


def watched_folders(target: str, directory: Path) -> list[Path]:
    """`directory`, and the folder of a file target, ``/path/to/file.py:attribute``, where it lies elsewhere."""
    place, _, _ = target.rpartition(":")
    folder = Path(place).parent if "/" in place else directory
    return [directory] if folder.is_relative_to(directory) else [directory, folder]


async def changes(folders: Iterable[Path], *, ignored: Iterable[Path] = ()) -> AsyncIterator[set[Path]]:
    """Wait for changes of Python files in `folders` and below, but not in `ignored`; each set has at least one file.

    Needs the `watchfiles` package (see `stickygw.config.checks`). A cancelled wait leaves no descriptor behind; its
    thread looks no more after `QUIET_MS`, and ends with the loop.
    """
    from watchfiles import Change, awatch

    # It logs each change at INFO; whoever reloads says it better.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    folders, ignored = tuple(folders), tuple(ignored)

    def is_watched(_: Change, path: str) -> bool:
        return _is_watched(Path(path), folders, ignored)

    found = awatch(*folders, watch_filter=is_watched, step=QUIET_MS, debounce=LONGEST_MS, ignore_permission_denied=True)
    async with aclosing(found):
        async for changed in found:
            yield {Path(path) for _, path in changed}


def _is_watched(path: Path, folders: Iterable[Path], ignored: Iterable[Path]) -> bool:
    if path.suffix != ".py" or any(path.is_relative_to(folder) for folder in ignored):
        return False
    return any(
        IGNORED_FOLDERS.isdisjoint(path.relative_to(folder).parts) for folder in folders if path.is_relative_to(folder)
    )
