"""``stickygw upgrade``: the primary runs the newest code without a connection noticing, then the workers do."""

from __future__ import annotations

import time

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import printable
from stickygw.errors import CommandError, NoGatewayError
from stickygw.ipc.control_client import ControlClient

BACK_SECONDS = 60.0
"""How long the new code may take to answer: Python and its imports, then the workers that come over."""

LOOK_SECONDS = 0.05


@click.command()
@on_gateway
def upgrade(gateway: ControlClient) -> None:
    """Run the newest code and settings in the primary, which adopts the workers, and then reload them.

    If the new code would not start, the old one goes on, and the exit code says so.
    """
    before = gateway.request("upgrade", on_progress=_show, timeout=None)["version"]
    with _back(gateway) as upgraded:
        facts = upgraded.request("upgraded", on_progress=_show, timeout=None)
    click.echo(printable(f"stickygw {facts['version']}, {before} before; {facts['message']}"))


def _back(gateway: ControlClient) -> ControlClient:
    """The same gateway, once it answers again. Raises `CommandError`."""
    until = time.monotonic() + BACK_SECONDS
    gateway.close()
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)  # nothing tells when a listener appears
        try:
            return ControlClient(gateway.path)
        except NoGatewayError:
            continue
    raise CommandError(f"the gateway does not answer {BACK_SECONDS:g} s after its upgrade: see its log")


def _show(text: str) -> None:
    click.echo(printable(text), err=True)
