"""Where commands of these tests look for gateways: a folder of the test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose name leaves room for those of Unix sockets; pytest's are too long."""
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        yield Path(name)
