"""Visitors that poll and keep no cookie: is each request of theirs answered by the worker that knows them?

    python examples/socketio_polling/client.py http://127.0.0.1:8000

They come all at once. The exit code is 1 when anybody was not served.
"""

import argparse
import asyncio
import sys
from collections import Counter

import aiohttp
import socketio

VISIT_SECONDS = 60.0
"""How long one visit may take."""


async def visit(url: str, transports: list[str], events: int) -> set[tuple[int, str]]:
    """One visitor, whose events are counted by the server; which workers have answered, and on which transport.

    Raises what went wrong, at the first request that is refused.
    """
    refusals = []

    async def note_refusal(answer: aiohttp.ClientResponse) -> None:
        if answer.status >= 400 and not refusals:
            refusals.append(f"{answer.status} {await answer.text()}")
            deadline.reschedule(0)

    try:
        async with (
            asyncio.timeout(VISIT_SECONDS) as deadline,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), raise_for_status=note_refusal) as http,
        ):
            return await ask(socketio.AsyncClient(reconnection=False, http_session=http), url, transports, events)
    except (TimeoutError, socketio.exceptions.SocketIOError) as error:
        if refusals:
            raise ConnectionError(refusals[0]) from error
        raise


async def ask(client: socketio.AsyncClient, url: str, transports: list[str], events: int) -> set[tuple[int, str]]:
    """Connect, and have `events` events counted."""
    answered = set()
    try:
        await client.connect(url, transports=transports, wait_timeout=VISIT_SECONDS)
        for number in range(1, events + 1):
            answer = await client.call("count", timeout=VISIT_SECONDS)
            if answer["count"] != number:
                raise ValueError(f"event {number} was counted as {answer['count']}")
            answered.add((answer["worker"], client.transport()))
        return answered
    finally:
        # Not `client.disconnect()`: it waits for the answer to its last poll, which python-engineio gives after 25 s.
        await client.eio.disconnect(abort=True)


async def main() -> int:
    parser = argparse.ArgumentParser(description="Polling Socket.IO clients without cookies.")
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--events", type=int, default=5)
    parser.add_argument("--transports", nargs="+", default=["polling"], help="the default is polling alone")
    options = parser.parse_args()
    visits = [visit(options.url, options.transports, options.events) for _ in range(options.clients)]
    ends = await asyncio.gather(*visits, return_exceptions=True)
    failures = Counter(f"{type(end).__name__}: {end}" for end in ends if isinstance(end, BaseException))
    answered = set().union(*(end for end in ends if isinstance(end, set)))
    for failure, times in failures.most_common(5):
        print(f"{times} × {failure}")
    print(f"served: {len(ends) - failures.total()} of {len(ends)}")
    print("workers:", *sorted({worker for worker, _ in answered}))
    for transport in sorted({transport for _, transport in answered}):
        print("transport:", transport)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
