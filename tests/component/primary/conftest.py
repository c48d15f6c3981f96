"""The primary runs on uvloop, so its tests do too."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop
from primary_rig import Rig, running_rig


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose name leaves room for those of Unix sockets; pytest's are too long."""
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        yield Path(name)


@pytest.fixture
async def make_rig(short_dir: Path) -> AsyncIterator[Callable[..., object]]:
    """Makes a `Rig` that is closed after the test."""
    async with AsyncExitStack() as stack:

        async def make(**options: object) -> Rig:
            return await stack.enter_async_context(running_rig(short_dir, **options))

        yield make
