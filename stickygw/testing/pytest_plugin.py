"""Fixtures for the tests of applications: `app_client` and `gateway`.

pytest loads this module in every environment that has stickygw, so it imports nothing before a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from stickygw import App
    from stickygw.testing import AppClient, Gateway


@pytest_asyncio.fixture
async def app_client() -> AsyncIterator[Callable[..., Awaitable[AppClient]]]:
    """``client = await app_client(app, **settings)``: the application runs in this process until the test ends."""
    from stickygw.testing.app_client import AppClient

    async with AsyncExitStack() as running:

        async def start(app: App, **options: Any) -> AppClient:
            return await running.enter_async_context(AppClient(app, **options))

        yield start


@pytest.fixture
def gateway() -> Iterator[Callable[..., Gateway]]:
    """``gw = gateway("app.py:app", workers=2)``: real processes, ready on return, gone when the test ends."""
    from stickygw.testing.gateway import Gateway

    with ExitStack() as running:
        yield lambda target, *options, **more: running.enter_context(Gateway(target, *options, **more))
