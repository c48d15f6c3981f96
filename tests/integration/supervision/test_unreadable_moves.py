"""New code that cannot read what the old worker says of its connections refuses them: closed with 1012, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.gateway import IN_TURNS, Gateway
from support.moving_clients import Rider
from support.steering import command, status

from stickygw.errors import ExitCode

APPS = Path(__file__).parents[1] / "apps"


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("import stickygw.apps.native.coming as patched; patched.VERSION = 99", "by version 1, this one by 99"),
        pytest.param(
            "import stickygw.apps.native.carried as patched; patched.VERSION = 99",
            "of version 1, this worker knows 99",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "import stickygw.apps.native.carried as patched; patched.unpacked = None",
            "are no connection",
            marks=pytest.mark.long,
        ),
    ],
    ids=["of the move", "of the connection", "another form"],
)
async def test_a_successor_that_reads_another_version_refuses_cleanly(tmp_path: Path, patch: str, why: str) -> None:
    file = tmp_path / "versioned.py"
    start = f"import sys\nsys.path.append({str(APPS)!r})\nfrom moving import app\n"
    file.write_text(start)
    with Gateway(f"{file}:app", *IN_TURNS, workers=1) as gateway:
        riders = [await Rider(index, "a").connect(gateway.port) for index in range(3)]
        try:
            file.write_text(f"{start}{patch}\n")
            done = await command(gateway, "reload")
            assert done.returncode == ExitCode.OK, done
            assert done.stdout.endswith("; 0 connections moved, 3 closed\n"), done
            assert "3 refused by the new code" in done.stderr
            for rider in riders:
                assert await rider.wait_ended() == 1012
            again = await Rider(3, "a", cookie=riders[0].cookie).connect(gateway.port)
            riders.append(again)
            assert (await again.who())["generation"] == 2
            assert (await status(gateway))["connections"] == 1
        finally:
            for rider in riders:
                rider.abort()
        assert why in gateway.log
        assert "Traceback" not in gateway.log
