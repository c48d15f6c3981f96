"""Nodes of one bridge, stopped after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from support.bridge_nodes import Node
from support.valkey import ValkeyServer

NewNode = Callable[..., Coroutine[Any, Any, Node]]


@pytest.fixture
async def new_node(prefix: str) -> AsyncIterator[NewNode]:
    """Makes and starts a `Node` at a server; all share a prefix."""
    nodes: list[Node] = []

    async def make(server: ValkeyServer, *secrets: bytes) -> Node:
        node = Node(server.url, prefix, secrets=secrets)
        nodes.append(node)
        await node.bridge.start()
        return node

    yield make
    for node in nodes:
        await node.bridge.stop()
