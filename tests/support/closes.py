"""How a WebSocket was closed."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode

from support.client import DEADLINE


async def close_of(connection: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close frame that ends `connection`, which gets no other message."""
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def closing(last: Frame | None) -> tuple[int, str]:
    """Code and reason of a close frame."""
    assert last is not None
    assert last.opcode is Opcode.CLOSE, last
    close = Close.parse(bytes(last.data))
    return close.code, close.reason
