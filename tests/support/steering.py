"""Commands for a running gateway, beside clients that live in the test's event loop; and what it says of itself."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

from stickygw.config.places import CONTROL_SOCKET
from stickygw.ipc.control_client import ControlClient
from support.gateway import Gateway
from support.waiting import wait_until


async def command(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`Gateway.command`, in a thread."""
    return await asyncio.to_thread(gateway.command, *arguments)


async def status(gateway: Gateway) -> dict[str, Any]:
    """What ``stickygw status --json`` prints, without a process for it."""

    def ask() -> dict[str, Any]:
        with ControlClient(gateway.runtime_dir / CONTROL_SOCKET) as client:
            return client.request("status")

    return await asyncio.to_thread(ask)


async def wait_for_status(gateway: Gateway, *, seconds: float = 30.0, **wanted: Any) -> None:
    """Wait until the status has these values."""

    async def has_them() -> bool:
        facts = await status(gateway)
        return all(facts[name] == value for name, value in wanted.items())

    await wait_until(has_them, seconds=seconds)
