"""The first signal asks and the second insists; what nohup(1) has ignored stays ignored."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from stickygw.primary.stop_signals import STOP_SIGNALS, StopSignals


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_the_first_signal_asks_and_the_second_insists():
    signals = StopSignals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert await asyncio.wait_for(signals.asked, 10) is signal.SIGHUP
    assert not signals.insisted.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(signals.insisted, 10)


async def test_a_hangup_that_is_ignored_from_the_start_ends_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = StopSignals()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(signals.asked, 10) is signal.SIGTERM
