"""`Schedule`: ticks in each worker, or in one of many."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw import App
from stickygw.apps.native.schedule import Job, Schedule
from stickygw.bridge.claims import Claims, ClaimsUnavailable, MemoryClaims, RedisClaims
from stickygw.observability.counters import Counters


class Away:
    """A store that is away."""

    async def claim(self, name: str, *, seconds: float) -> bool:
        raise ClaimsUnavailable("away")

    async def close(self) -> None:
        pass


def schedule(
    *jobs: Job, claims: Claims | None = None, gateway: str = "0000aaaa", counters: Counters | None = None
) -> Schedule:
    def spawn(tick: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(tick)

    return Schedule(
        jobs, claims=claims or MemoryClaims(), gateway=gateway, counters=counters or Counters(), spawn=spawn
    )


@pytest.mark.parametrize("once", ["worker", "machine", "cluster"])
async def test_a_job_runs_again_and_again_also_after_an_error(once: Any, caplog: pytest.LogCaptureFixture) -> None:
    ticks: list[int] = []

    async def tick() -> None:
        ticks.append(len(ticks))
        if len(ticks) == 1:
            raise LookupError("the first one")

    running = schedule(Job(tick, 0.05, once))
    running.start()
    await wait_until(lambda: len(ticks) >= 3)
    running.stop()
    assert [record.levelno for record in caplog.records if "raised" in record.message] == [logging.ERROR]


async def test_a_tick_that_still_runs_is_not_joined_by_another() -> None:
    counters, may_end, begun = Counters(), asyncio.Event(), []

    async def slow() -> None:
        begun.append(1)
        await may_end.wait()

    running = schedule(Job(slow, 0.05, "worker"), counters=counters)
    running.start()
    await wait_until(lambda: counters.value("ticks_skipped", "busy") >= 2)
    assert len(begun) == 1
    may_end.set()
    await wait_until(lambda: len(begun) >= 2)
    running.stop()


@pytest.mark.parametrize(("once", "gateways"), [("machine", ["a", "a", "a", "b"]), ("cluster", ["a", "a", "b", "c"])])
async def test_of_many_workers_one_has_each_tick(
    valkey: ValkeyServer, prefix: str, once: Any, gateways: list[str]
) -> None:
    claims = RedisClaims(valkey.url, prefix=prefix)
    had: list[tuple[str, str]] = []
    claimed: list[str] = []

    class Noted:
        async def claim(self, name: str, *, seconds: float) -> bool:
            is_ours = await claims.claim(name, seconds=30)  # so long that no tick of this test is forgotten
            if is_ours:
                claimed.append(name)
            return is_ours

        async def close(self) -> None:
            pass

    def job(gateway: str) -> Callable[[], None]:
        def tick() -> None:
            had.append((gateway, "tick"))

        return tick

    running = [schedule(Job(job(gateway), 0.1, once), claims=Noted(), gateway=gateway) for gateway in gateways]
    for each in running:
        each.start()
    await wait_until(lambda: len(had) >= 6)
    for each in running:
        each.stop()
    await asyncio.sleep(0)
    assert len(claimed) == len(set(claimed))
    assert abs(len(had) - len(claimed)) <= len(gateways)  # a tick that was claimed last may not have begun
    await claims.close()


async def test_while_nobody_can_say_whose_turn_it_is_it_is_nobody_s() -> None:
    counters, ticks = Counters(), []
    running = schedule(Job(lambda: ticks.append(1), 0.05, "cluster"), claims=Away(), counters=counters)
    running.start()
    await wait_until(lambda: counters.value("ticks_skipped", "away") >= 2)
    running.stop()
    assert ticks == []


async def test_a_claim_is_the_first_one_s_until_it_is_forgotten(valkey: ValkeyServer, prefix: str) -> None:
    one, two = RedisClaims(valkey.url, prefix=prefix), RedisClaims(valkey.url, prefix=prefix)
    name = secrets.token_hex(4)
    assert [await one.claim(name, seconds=0.2), await two.claim(name, seconds=0.2)] == [True, False]
    await wait_until(lambda: two.claim(name, seconds=30))
    await one.close()
    await two.close()


async def test_a_claim_at_a_store_that_is_away_is_an_error(own_valkey: ValkeyServer, prefix: str) -> None:
    claims = RedisClaims(own_valkey.url, prefix=prefix)
    own_valkey.stop()
    with pytest.raises(ClaimsUnavailable):
        await claims.claim("a", seconds=1)
    await claims.close()


@pytest.mark.parametrize(("seconds", "once"), [(0.01, "worker"), (0, "worker"), (3e6, "worker"), (1, "galaxy")])
def test_what_cannot_be_done_is_refused_where_it_is_asked_for(seconds: float, once: Any) -> None:
    with pytest.raises(ValueError, match=r"once is one of|are possible"):
        App().every(seconds=seconds, once=once)(lambda: None)
