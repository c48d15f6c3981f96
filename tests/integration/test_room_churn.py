"""Rooms that clients join and leave at random: the store has a subscription for each with members, and no other."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from support.client import Client, gather_bounded
from support.gateway import IN_TURNS, Gateway
from support.observed import memory_mib
from support.valkey import ValkeyServer
from support.waiting import wait_until

APP = f"{Path(__file__).parent / 'apps' / 'audience.py'}:app"

ROOMS, CLIENTS, SECONDS = 10_000, 1_000, 20.0


@pytest.mark.long
@pytest.mark.alone
async def test_10_000_rooms_joined_and_left_at_random_leave_nothing_behind(valkey: ValkeyServer, prefix: str) -> None:
    options = ["--redis", valkey.url, *IN_TURNS, "--set", f"redis.prefix={prefix}"]
    with Gateway(APP, *options, workers=2, environment={"STICKYGW_SECRET": "s" * 40}) as gateway:
        async with Redis.from_url(valkey.url, decode_responses=True) as redis:

            async def channels() -> set[str]:
                found = await redis.pubsub_channels(f"{prefix}:room:*")
                return {name.removeprefix(f"{prefix}:room:") for name in found}

            warm = await churned(gateway, seconds=2.0, channels=channels)
            again = await churned(gateway, seconds=SECONDS, channels=channels)
    print(f"worker memory behind a short and a long churn: {warm} and {again} MiB")
    assert all(after <= before * 1.25 + 10 for before, after in zip(warm, again, strict=True))


async def churned(gateway: Gateway, *, seconds: float, channels) -> list[float]:  # type: ignore[no-untyped-def]
    """Join and leave for so long, then leave; the workers' memory in MiB."""
    joined: list[set[str]] = [set() for _ in range(CLIENTS)]
    async with AsyncExitStack() as stack:
        clients = [Client(gateway.ws_url) for _ in range(CLIENTS)]
        await gather_bounded(50, *(client.open() for client in clients))
        for client in clients:
            stack.push_async_callback(client.close)
        end, changes = time.monotonic() + seconds, 0

        async def wander(client: Client, rooms: set[str], rng: random.Random) -> None:
            nonlocal changes
            while time.monotonic() < end:
                if rooms and rng.random() < 0.45:
                    room = rng.choice(sorted(rooms))
                    rooms.discard(room)
                    answer = await client.ask(do="leave", rooms=[room])
                else:
                    room = f"room {rng.randrange(ROOMS)}"
                    rooms.add(room)
                    answer = await client.ask(do="join", rooms=[room])
                assert answer == {"rooms": sorted(rooms)}
                changes += 1

        seeds = range(CLIENTS)
        await asyncio.gather(*(wander(c, r, random.Random(n)) for c, r, n in zip(clients, joined, seeds, strict=True)))
        wanted = set().union(*joined)

        async def is_as_wanted() -> bool:
            return await channels() == wanted

        await wait_until(is_as_wanted, seconds=20)
        print(f"{changes} changes in {seconds:g} s; {len(wanted)} rooms with members, as many subscriptions")

    async def is_empty() -> bool:
        return await channels() == set()

    await wait_until(is_empty, seconds=20)
    return [memory_mib(pid) for pid in gateway.worker_pids().values()]
