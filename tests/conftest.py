"""Fixtures that tests of several kinds share."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator

import pytest
from support.valkey import ValkeyServer


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey that all tests of this process share: keep to your `prefix`, and leave it running."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey for this test alone, to stop, pause and flush."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """The system's Redis, where it is installed, shared like `valkey`."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on PATH")
    with ValkeyServer(binary) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """The first part of this test's keys and channels, never used before."""
    return f"test-{secrets.token_hex(6)}"
