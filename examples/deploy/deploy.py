"""What clients see of new code, fewer workers, an upgrade, and a `kill -9` of the primary: nothing.

    python examples/deploy/deploy.py [--clients 200]

Starts a gateway with a copy of app.py, lets clients talk in it (crowd.py), does to it what is done to gateways, and
prints after each step what the clients saw. Exit status 1: something was closed, lost, doubled, out of order or
forgotten, or a command failed. Nothing that was started is left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from crowd import FAULTS, Crowd, Sight
from rich.console import Console
from rich.markup import escape

from stickygw.testing import Gateway

APP = Path(__file__).with_name("app.py")
MEMBERS = 10
"""Of a room."""
NEWCOMERS = 20
"""Who enter while something is being done."""

console = Console(highlight=False, soft_wrap=True)


class Deploys:
    """The steps, one after the other. `faults`: how many the clients have seen in all."""

    def __init__(self, app: Path, gateway: Gateway, *, clients: int, outage: float) -> None:
        self.app = app
        self.gateway = gateway
        self.clients = clients
        self.outage = outage
        self.faults = 0
        self.crowd = Crowd(gateway.ws_url, rooms=max(1, clients // MEMBERS))

    async def run(self) -> None:
        await self.crowd.enter(self.clients)
        async with self.step(f"{self.clients} clients talk in {len(self.crowd.rooms)} rooms, on two workers"):
            await asyncio.sleep(1.0)

        async with self.step("New code: version 1 becomes 2"):
            self.write_version(2)
            await self.stickygw("reload")

        async with self.step("Code that does not start: the one before it goes on"):
            self.app.write_text("This is no Python.")
            await self.stickygw("reload", fails=True)
            self.write_version(2)

        async with self.step(f"A third worker, to which some of {NEWCOMERS} newcomers go, and two again"):
            await self.stickygw("scale", "3")
            await self.crowd.enter(NEWCOMERS)
            await self.stickygw("scale", "2")

        async with self.step("The gateway itself is upgraded, with whatever version of stickygw is installed now"):
            self.write_version(3)
            await self.stickygw("upgrade")

        async with self.step(f"The primary dies. For {self.outage:g} s there is none; {NEWCOMERS} newcomers connect"):
            os.kill(self.gateway.pid, signal.SIGKILL)
            await asyncio.to_thread(self.gateway.wait)
            console.print(f"  [cyan]$ kill -9 {self.gateway.pid}[/]")
            async with asyncio.TaskGroup() as tasks:
                entering = tasks.create_task(self.crowd.enter(NEWCOMERS))
                await asyncio.sleep(self.outage)
                waited = "were in before" if entering.done() else "had to wait for it"
                await asyncio.to_thread(self.gateway.start)
            console.print(f"  [cyan]$ stickygw run …[/]  [dim]the newcomers {waited}[/]")

        await self.crowd.leave()

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[None]:
        """Clients talk while it is done; one line says what they saw."""
        console.print(f"\n[bold]{title}[/]")
        async with self.crowd.talking():
            yield
        assert self.crowd.sight is not None
        self.faults += self.crowd.sight.faults.total()
        console.print(f"  {in_words(self.crowd.sight)}")

    async def stickygw(self, *command: str, fails: bool = False) -> None:
        """Run a command as an operator does, and show the last that it says."""
        done = await asyncio.to_thread(self.gateway.command, *command)
        *_, said = ["", *(done.stdout + (done.stderr if fails else "")).strip().splitlines()]
        console.print(f"  [cyan]$ stickygw {' '.join(command)}[/]  [dim]{escape(said)}[/]")
        if (done.returncode != 0) != fails:
            sys.exit(f"exit status {done.returncode}\n{done.stderr}\nThe gateway's log:\n{self.gateway.log[-4000:]}")

    def write_version(self, version: int) -> None:
        self.app.write_text(APP.read_text().replace("VERSION = 1", f"VERSION = {version}"))


def in_words(sight: Sight) -> str:
    mark = "[red]✗[/]" if sight.faults.total() else "[green]✓[/]"
    counts = (f"[{'bold red' if (count := sight.faults[name]) else 'green'}]{count}[/] {name}" for name in FAULTS)
    silence = f"longest silence [bold]{sight.silence * 1000:.0f} ms[/], own lag {sight.own_lag * 1000:.0f} ms"
    versions = " and ".join(str(version) for version in sorted(sight.versions))
    return f"{mark} {', '.join(counts)}; {silence}; [bold]version {versions}[/] answers"


async def run(clients: int, outage: float, folder: Path) -> int:
    """All steps; the exit status. SIGTERM cancels it, as Ctrl-C does: nothing is left."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    app = folder / "app.py"
    app.write_text(APP.read_text())
    # Without its slow start the third worker gets its share of newcomers at once.
    gateway = Gateway(f"{app}:app", "--set", "slow_start=0", workers=2)
    try:
        await asyncio.to_thread(gateway.start)
        deploys = Deploys(app, gateway, clients=clients, outage=outage)
        await deploys.run()
    finally:
        await asyncio.to_thread(gateway.close)  # it ends workers without a primary, too
    if deploys.faults:
        console.print(f"\n[bold red]The clients have seen {deploys.faults} faults.[/]")
        return 1
    console.print("\n[bold green]No client has noticed anything.[/]")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="What clients see of deploys, and of a primary that dies.")
    parser.add_argument("--clients", type=int, default=200, help="how many talk (default: 200)")
    parser.add_argument("--outage", type=float, default=2.0, help="seconds without a primary (default: 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deploy-") as folder:
        return asyncio.run(run(options.clients, options.outage, Path(folder)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
