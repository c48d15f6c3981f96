"""A TCP port before a store at a Unix socket, which ends connections when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StoreProxy:
    """Passes on what it gets. `loses_next_answer`: the store does the next command, and its connection ends before the
    answer is passed on; then it is False again."""

    def __init__(self, url: str) -> None:
        self._path = url.removeprefix("unix://")
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.loses_next_answer = False

    async def end_connections(self) -> None:
        """End those that are open, as a store that starts again does."""
        writers = tuple(self._writers)
        for writer in writers:
            writer.close()
        for writer in writers:
            await writer.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self._writers.add(writer)
        store_reader, store_writer = await asyncio.open_unix_connection(self._path)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, store_writer, is_answers=False))
                pumps.create_task(self._pump(store_reader, writer, is_answers=True))
        finally:
            self._writers.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answers: bool) -> None:
        while data := await reader.read(65536):
            if is_answers and self.loses_next_answer:
                self.loses_next_answer = False
                break
            writer.write(data)
        writer.close()


@asynccontextmanager
async def store_proxy(url: str) -> AsyncIterator[StoreProxy]:
    """A `StoreProxy` before the store at `url`, ``unix://…``, on a port that the system chooses."""
    proxy = StoreProxy(url)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield proxy
        finally:
            await proxy.end_connections()
