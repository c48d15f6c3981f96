"""``stickygw publish`` as processes, beside a gateway that always answers the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.commands import default_dir, stickygw
from support.fake_primary import FakePrimary, fake_primary

from stickygw.errors import ExitCode

AWAY = {"url": "redis://:sesame@127.0.0.1:1/0", "prefix": "p", "secret": "an open secret of thirty-two bytes"}


@pytest.fixture
async def primary(short_dir: Path) -> AsyncIterator[FakePrimary]:
    """Its store is away."""
    async with fake_primary(default_dir(short_dir)) as primary:
        primary.answers["rooms.store"] = AWAY
        yield primary


@pytest.mark.usefixtures("primary")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["lobby"],
        ["lobby", "hello", "world"],
        ["--user", "ada"],
        ["--user", "ada", "lobby", "hello"],
        ["--user", "ada", "--session", "5e55", "hello"],
        ["lobby", "not base64", "--binary"],
        ["", "hello"],
        ["--user", "a\nb", "hello"],
        ["--session", "s" * 300, "hello"],
        ["--session", "", "hello"],
        ["--user", "", "hello"],
    ],
)
async def test_what_cannot_be_sent_is_a_wrong_command_line(short_dir: Path, arguments: list[str]) -> None:
    done = await stickygw(short_dir, "publish", *arguments)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert "Error: " in done.err


@pytest.mark.usefixtures("primary")
async def test_a_store_that_is_away_is_one_line_without_password_and_secret(short_dir: Path) -> None:
    done = await stickygw(short_dir, "publish", "lobby", "hello")
    assert (done.code, done.out) == (ExitCode.STORE, "")
    assert done.err.startswith("error: not published, the store was not reached: ")
    assert len(done.err.splitlines()) == 1
    assert "sesame" not in done.err
    assert "open secret" not in done.err
