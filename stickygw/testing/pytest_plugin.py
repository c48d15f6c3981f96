"""Fixtures for the tests of applications: `gateway`, and `app_client` where pytest-asyncio is installed.

pytest loads this module in every environment that has stickygw, for projects that never heard of it too: so it needs
nothing but pytest, and imports the rest when a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stickygw import App
    from stickygw.testing import AppClient, Gateway

try:
    import pytest_asyncio
except ModuleNotFoundError:
    pass  # whoever asks for `app_client` is told that there is no such fixture
else:

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
