"""Sessions of the MCP protocols that have them: is each call answered by the worker that began the session?

    python examples/mcp_server/client.py http://127.0.0.1:8000/mcp

They begin all at once. The exit code is 1 when anybody was not served.
"""

import argparse
import asyncio
import sys
from collections import Counter

from mcp.client import Client

SESSION_SECONDS = 60.0
"""How long one session may take."""


async def converse(url: str, name: str, calls: int) -> set[int]:
    """One session of `calls` calls, whose notes must be its own; the workers that answered. Raises what went wrong."""
    workers = set()
    async with asyncio.timeout(SESSION_SECONDS), Client(url, mode="legacy") as client:
        for number in range(1, calls - 1):
            count = await result(client, "note", text=f"{name}.{number}")
            if count != number:
                raise ValueError(f"note {number} was counted as {count}")
        workers.add(await result(client, "worker"))
        notes = await result(client, "notes")
        if notes != [f"{name}.{number}" for number in range(1, calls - 1)]:
            raise ValueError(f"the notes of {name} are {notes}")
    return workers


async def result(client: Client, tool: str, **arguments: str) -> object:
    """What the tool returned. Raises `RuntimeError` with what it says when it fails."""
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        raise RuntimeError(f"{tool}: {answer.content}")
    return answer.structured_content["result"]


def reason(error: BaseException) -> str:
    """The first thing that went wrong: the SDK's tasks end in groups, and so do their errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


async def main() -> int:
    parser = argparse.ArgumentParser(description="Sessions with the server of this example.")
    parser.add_argument("url")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--calls", type=int, default=5)
    options = parser.parse_args()
    sessions = [converse(options.url, f"session {number}", options.calls) for number in range(options.sessions)]
    ends = await asyncio.gather(*sessions, return_exceptions=True)
    failures = Counter(reason(end) for end in ends if isinstance(end, BaseException))
    workers = set().union(*(end for end in ends if isinstance(end, set)))
    for failure, times in failures.most_common(5):
        print(f"{times} × {failure}")
    print(f"served: {len(ends) - failures.total()} of {len(ends)}")
    print("workers:", *sorted(workers))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
