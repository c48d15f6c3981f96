"""A pytest plugin whose line is the run's last one: how many browser tests ran, and why none did.

They are skipped where there is no Chromium, and a skipped test is easily overlooked.
"""

from __future__ import annotations

import pytest

from support.chromium import chromedriver, chromium

_ran = 0


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Also called in the main process of pytest-xdist, with what its workers report."""
    global _ran
    if report.when == "call" and "browser" in report.keywords and not report.skipped:
        _ran += 1


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    why = "" if chromium() and chromedriver() else " (no Chromium here)"
    print(f"browser tests: {_ran} ran{why}")
