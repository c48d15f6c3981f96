"""Drops are all counted, and logged once a second with how many there were."""

import logging

import pytest

from stickygw.observability.counters import Counters
from stickygw.observability.drops import Drops


def test_each_reason_is_logged_once_a_second_with_the_count_since(caplog: pytest.LogCaptureFixture) -> None:
    now, counters = 100.0, Counters()
    drops = Drops("lost", counters=counters, log=logging.getLogger("drops"), clock=lambda: now)
    for _ in range(4):
        drops.add("full", "too full")
    drops.add("away", "nobody")
    now = 101.0
    drops.add("full", "too full")
    now = 200.0
    drops.add("full", "too full")
    assert [record.getMessage() for record in caplog.records] == [
        "too full",
        "nobody",
        "too full (and 3 more like it)",
        "too full",
    ]
    assert (counters.value("lost", "full"), counters.value("lost", "away")) == (6, 1)
