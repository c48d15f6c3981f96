"""A chat server as people write it: `websockets.broadcast` to the clients here, `redis.asyncio` to the other processes.

``python -m benchmarks.peers.broadcast_bridge REDIS_URL``: one process; prints its port, ends with its standard input.
What a client says goes to everybody.
"""

from __future__ import annotations

import asyncio
import secrets
import sys

import redis.asyncio
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

CHANNEL = "lobby"


async def main(url: str) -> None:
    origin = secrets.token_bytes(8)
    clients: set[ServerConnection] = set()
    store = redis.asyncio.from_url(url)
    pubsub = store.pubsub()
    await pubsub.subscribe(CHANNEL)

    async def receive() -> None:
        async for message in pubsub.listen():
            if message["type"] == "message" and not message["data"].startswith(origin):
                broadcast(clients, message["data"][len(origin) :].decode())

    async def handle(connection: ServerConnection) -> None:
        clients.add(connection)
        try:
            async for text in connection:
                assert isinstance(text, str)
                broadcast(clients, text)
                await store.publish(CHANNEL, origin + text.encode())
        except ConnectionClosed:
            pass  # our clients leave without a word
        finally:
            clients.discard(connection)

    receiver = asyncio.create_task(receive())
    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    receiver.cancel()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
