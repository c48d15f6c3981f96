"""The one timer: who is pinged, who is ended, and who is not judged because it was us who slept."""

import asyncio
import time

import pytest
from support.waiting import wait_until

from stickygw.connections.keepalive import KeepAlive
from stickygw.observability.counters import Counters


class Peer:
    """A WebSocket as the keep-alive sees it."""

    is_reading = True

    def __init__(
        self,
        *,
        quiet: float = 0.0,
        pinged: float | None = None,
        blocked: float | None = None,
        spared: bool = False,
    ) -> None:
        now = time.monotonic()
        self.heard_at = now - quiet
        self.pinged_at = None if pinged is None else now - pinged
        self.blocked_since = None if blocked is None else now - blocked
        self.is_spared = spared
        self.told: list[str] = []

    def ping(self) -> None:
        self.told.append("ping")

    def abort(self) -> None:
        self.told.append("abort")

    def close_slow(self) -> None:
        self.told.append("close_slow")


@pytest.fixture
async def keep_alive(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stickygw.connections.keepalive.SWEEP_SECONDS", 0.05)
    keep_alive = KeepAlive(
        asyncio.get_running_loop(), ping_interval=5, ping_timeout=3, outbox_seconds=2, counters=Counters()
    )
    yield keep_alive
    keep_alive.stop()


async def swept_once(keep_alive: KeepAlive, watched: Peer) -> None:
    """Watch, and wait for a sweep: somebody else who is due a ping has got it, the sweep being one callback."""
    due = Peer(quiet=6.0)
    keep_alive.watch(watched)  # type: ignore[arg-type]
    keep_alive.watch(due)  # type: ignore[arg-type]
    await wait_until(lambda: due.told)


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        ({}, []),
        ({"quiet": 6.0}, ["ping"]),
        ({"quiet": 9.0, "pinged": 2.0}, []),
        ({"quiet": 9.0, "pinged": 4.0}, ["abort"]),
        ({"blocked": 1.0}, []),
        ({"blocked": 3.0}, ["close_slow"]),
        ({"blocked": 7.0, "spared": True}, []),
        ({"blocked": 9.0, "spared": True}, ["close_slow"]),
        ({"blocked": 3.0, "spared": True, "quiet": 9.0, "pinged": 4.0}, ["abort"]),
    ],
)
async def test_a_sweep(keep_alive: KeepAlive, peer: dict[str, float], told: list[str]) -> None:
    watched = Peer(**peer)
    await swept_once(keep_alive, watched)
    assert watched.told[:1] == told


async def test_a_peer_that_is_not_read_is_not_ended_for_a_pong_that_may_lie_there(keep_alive: KeepAlive) -> None:
    watched = Peer(quiet=9.0, pinged=4.0)
    watched.is_reading = False
    await swept_once(keep_alive, watched)
    assert watched.told == []


async def test_after_the_loop_was_blocked_nobody_is_judged_at_once(keep_alive: KeepAlive) -> None:
    watched = Peer(quiet=9.0, pinged=4.0)
    keep_alive.watch(watched)  # type: ignore[arg-type]
    time.sleep(0.2)  # noqa: ASYNC251 - the blocked loop that this is about
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert watched.told == []
