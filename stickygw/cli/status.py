"""``stickygw status``: what a running gateway is and does, once."""

from __future__ import annotations

from typing import cast

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import as_json
from stickygw.ipc.control_client import ControlClient
from stickygw.wire.status import Status

MAX_WIDTH = 10_000
"""Columns of the widest line; a longer one breaks."""


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print all facts as JSON: seconds, bytes, fractions of a CPU.")
@on_gateway
def status(gateway: ControlClient, is_json: bool) -> None:
    """Show the gateway, its workers and what it has counted."""
    facts = cast(Status, gateway.request("status"))
    if is_json:
        click.echo(as_json(facts))
        return
    from rich.console import Console

    from stickygw.cli.tables import report

    console = Console(highlight=False)
    # A table is worth more whole than fitted: a pipe has no width, and a narrow terminal breaks the lines.
    whole = report(facts)
    unbounded = console.options.update(max_width=MAX_WIDTH)
    console.width = max(console.width, console.measure(whole, options=unbounded).maximum)
    console.print(whole)
