"""examples/deploy: what it prints, what it counts, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.gateway import ROOT
from support.waiting import wait_until

from stickygw.testing.processes import kill_all, wait_until_gone

FOLDER = ROOT / "examples" / "deploy"
SEEN = re.compile(r"0 closed, 0 lost, 0 doubled, 0 reordered, 0 forgotten; .*version (.*) answers$", re.MULTILINE)
SECONDS = 100.0
"""After which it is killed; its own deadlines are shorter."""


@contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The script, of which nothing may be left when the block ends."""
    mark = str(tmp_path)  # all its children inherit it
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "deploy.py"), *arguments],
        env={**os.environ, "TMPDIR": "/tmp", "COLUMNS": "200", "DEPLOY_EXAMPLE_OF": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
        assert wait_until_gone(mark, 1.0) == set(), "it ends all that it started"
    finally:
        kill_all(mark)
        process.communicate()


@pytest.mark.alone
@pytest.mark.long
def test_nobody_notices_new_code_another_number_of_workers_an_upgrade_or_a_dead_primary(tmp_path: Path) -> None:
    with started(tmp_path, "--clients", "12", "--outage", "0.5") as process:
        text, _ = process.communicate(timeout=SECONDS)
        print(text)
        assert process.returncode == 0, text
    assert SEEN.findall(text) == ["1", "2", "2", "2", "3", "3"], "one line a step"
    commands = re.findall(r"\$ (stickygw \w+|kill -9)", text)
    assert commands == [f"stickygw {name}" for name in ("reload", "reload", "scale", "scale", "upgrade")] + [
        "kill -9",
        "stickygw run",
    ]
    assert "failed with SyntaxError" in text
    assert "the newcomers had to wait for it" in text
    assert text.endswith("No client has noticed anything.\n")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_there_is_no_primary_it_ends_the_workers(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, "--clients", "2", "--outage", "60") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "$ kill -9" in line:
                break
        process.send_signal(number)
        text, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 130, text
        assert text == "", "no traceback"


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of its clients."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import crowd  # type: ignore[import-not-found]

    yield crowd
    del sys.modules["crowd"]


@pytest.mark.parametrize(
    ("came", "sent", "faults"),
    [
        ([1, 2, 3], 3, {}),
        ([1, 3], 3, {"lost": 1}),
        ([1, 2], 4, {"lost": 2}),
        ([1, 2, 2, 3], 3, {"doubled": 1}),
        ([1, 3, 2], 3, {"reordered": 1}),
        ([1, 3, 2, 2], 3, {"reordered": 1, "doubled": 1}),
        ([5, 6], 6, {}),
        ([5, 7], 7, {"lost": 1}),
    ],
)
def test_numbers_tell_what_is_lost_doubled_and_out_of_order(
    crowd: Any, came: list[int], sent: int, faults: dict[str, int]
) -> None:
    seen: Counter[str] = Counter()
    numbers = crowd.Numbers(seen)
    for number in came:
        numbers.came(number)
    assert numbers.are_whole(sent) is ("lost" not in faults)
    numbers.give_up(sent)
    assert +seen == Counter(faults)
    assert numbers.are_whole(sent), "what is lost is counted once"


class BadSocket:
    """A server that closes the first client at its second echo, leaves the second's second one unanswered, has
    forgotten the third when it comes to its second, and says everything to the speaker alone."""

    made = 0

    def __init__(self) -> None:
        self.number = BadSocket.made
        BadSocket.made += 1
        self.sent: asyncio.Queue[str | None] = asyncio.Queue()

    async def send(self, text: str) -> None:
        message = json.loads(text)
        is_second = message["type"] == "echo" and message["number"] == 2
        if is_second and self.number == 0:
            self.sent.put_nowait(None)
        elif not (is_second and self.number == 1):
            count = 1 if is_second and self.number == 2 else message["number"]
            self.sent.put_nowait(json.dumps(message | {"count": count, "version": 7}))

    async def close(self) -> None:
        self.sent.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self.sent.get()) is not None:
            yield text


async def test_the_crowd_sees_who_is_closed_what_is_lost_and_what_a_worker_has_forgotten(
    crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(url: str, **options: object) -> BadSocket:
        return BadSocket()

    monkeypatch.setattr(crowd, "connect", connect)
    monkeypatch.setattr(crowd, "PATIENCE", 0.1)
    monkeypatch.setattr(crowd, "PAUSE", 0.0)
    talked: list[Any] = []

    async def three_echoes(client: Any) -> None:
        for _ in range(3):
            await client.echo()
        talked.append(client)

    monkeypatch.setattr(crowd.Client, "talk", three_echoes)
    visitors = crowd.Crowd("", rooms=1)
    await visitors.enter(3)
    async with visitors.talking():
        await wait_until(lambda: len(talked) == 3)
    sight = visitors.sight
    unheard = 2  # what each of the two who are left has said to the other
    jumps = 3  # of the third's count, back and forth, and of the second's, which has a hole
    assert +sight.faults == Counter(closed=1, lost=1 + unheard, forgotten=jumps)
    assert sight.versions == {7}
    assert not any(client.is_out for client in visitors.clients), "who was closed has come back"
    await visitors.leave()
