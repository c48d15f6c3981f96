"""Nodes of one bridge, stopped after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from support.bridge_nodes import Node
from support.publishers import SECRET
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


@pytest.fixture
async def new_signed_node(prefix: str) -> AsyncIterator[NewNode]:
    """Starts nodes at a URL, which sign what they send with `SECRET`."""
    nodes: list[Node] = []

    async def make(url: str) -> Node:
        nodes.append(Node(url, prefix, secrets=(SECRET.encode(),)))
        await nodes[-1].bridge.start()
        return nodes[-1]

    yield make
    for node in nodes:
        await node.bridge.stop()
