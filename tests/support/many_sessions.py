"""Stored sessions, as many as are wanted, written as a worker writes them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from stickygw.sessions.redis import MAX_CONNECTIONS, RedisSessionStore
from stickygw.sessions.values import pack
from stickygw.types import SessionId

FIELDS = ("user", "name", "token", "theme", "cart", "seen")
DAY = 86_400


def six_fields(seed: int, longest: int = 64) -> dict[str, bytes]:
    """Packed values of at most `longest` bytes, other ones for each `seed`."""
    source = random.Random(seed)
    lengths = [source.randrange(1, longest - 2) for _ in FIELDS]
    return {
        field: pack(field, source.randbytes(length).hex()[:length])
        for field, length in zip(FIELDS, lengths, strict=True)
    }


def six_long_fields(_: int) -> dict[str, bytes]:
    """Texts of 64 bytes, which are 66 packed: the server no longer keeps such a hash in its compact form."""
    return {field: pack(field, "x" * 64) for field in FIELDS}


def session_id(number: int) -> SessionId:
    """The id of the session with that number."""
    return SessionId(f"{number:032x}")


async def fill(
    store: RedisSessionStore, count: int, *, ttl: int = DAY, fields: Callable[[int], dict[str, bytes]] = six_fields
) -> None:
    """Store the sessions 0 to `count` - 1, each with the `fields` of its number."""

    async def write_every(first: int) -> None:
        for number in range(first, count, MAX_CONNECTIONS):
            await store.write(session_id(number), fields(number), (), ttl, is_new=True)

    async with asyncio.TaskGroup() as tasks:
        for first in range(MAX_CONNECTIONS):
            tasks.create_task(write_every(first))
