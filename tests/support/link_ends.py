"""A move between `Joined` workers, held up at the places where things can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.joined_workers import Joined
from support.waiting import wait_until


def once_sent(workers: Joined, act: Callable[[], None]) -> None:
    """Call `act` when the next connection has been frozen and sent, before the new worker can have read it. To be asked
    for right behind `Joined.begin`; what `act` raises is the failure of the move."""
    send = workers.leaving._send

    def send_and_act(*ticket: object) -> bool:
        is_sent = send(*ticket)  # type: ignore[arg-type]
        if is_sent:
            workers.leaving._send = send  # type: ignore[method-assign]
            act()
        return is_sent

    workers.leaving._send = send_and_act  # type: ignore[assignment,method-assign]


@contextmanager
def new_stands_still(workers: Joined) -> Iterator[None]:
    """The new worker reads nothing of the link meanwhile."""
    loop, fd = asyncio.get_running_loop(), workers._ours.fileno()
    loop.remove_reader(fd)
    yield
    loop.add_reader(fd, workers.coming._link._datagrams._readable)


@contextmanager
def old_stands_still(workers: Joined) -> Iterator[None]:
    """The old worker reads nothing of the link meanwhile."""
    loop, fd = asyncio.get_running_loop(), workers._theirs.fileno()
    loop.remove_reader(fd)
    yield
    loop.add_reader(fd, workers.leaving._link._datagrams._readable)


async def occupied(workers: Joined, count: int = 1) -> None:
    """Until handlers of so many of the old worker's connections are at work."""
    await wait_until(lambda: sum(each.receiver._is_busy for each in workers.old.runtime.connections) == count)
