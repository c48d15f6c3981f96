"""Every test here drives Chromium, and is skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.chat_page import ChatPage
from support.chromium import browser, chromedriver, chromium
from support.gateway import CHAT, Gateway

HERE = Path(__file__).parent

NewVisitor = Callable[[str], ChatPage]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    is_missing = not (chromium() and chromedriver())
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if is_missing:
                item.add_marker(pytest.mark.skip(reason="no Chromium with chromedriver on PATH"))


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """The chat on two workers."""
    with Gateway(CHAT, workers=2) as gateway:
        yield gateway


@pytest.fixture
def new_visitor(tmp_path: Path) -> Iterator[NewVisitor]:
    """Opens the chat page in a browser profile of its own, each time it is called."""
    with ExitStack() as browsers:

        def open_page(url: str) -> ChatPage:
            profile = tmp_path / f"profile-{len(list(tmp_path.iterdir()))}"
            return ChatPage(browsers.enter_context(browser(profile)), url)

        yield open_page
