"""The primary runs on uvloop, tests of applications on asyncio: a control socket works on both."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose name leaves room for those of Unix sockets; pytest's are too long."""
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        yield Path(name)
