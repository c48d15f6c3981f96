"""``stickygw reload``, ``scale``, ``drain``, ``restart``, ``stop``: they change a running gateway, and wait for it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import printable
from stickygw.errors import CommandError, ExitCode
from stickygw.ipc.control_client import ControlClient
from stickygw.types import MAX_SLOTS

EXIT_SECONDS = 10.0
"""After its last word a gateway is gone at once; so long it is waited for."""

SLOT = click.IntRange(min=0, max=MAX_SLOTS - 1)


@click.command()
@on_gateway
def reload(gateway: ControlClient) -> None:
    """Load the application anew: slot by slot, the new worker is ready before the old one drains.

    If a new worker cannot start, the old ones serve on, and the exit code says so.
    """
    _carry_out(gateway, "reload")


@click.command()
@click.argument("slots", metavar="N", type=click.IntRange(min=1, max=MAX_SLOTS))
@on_gateway
def scale(gateway: ControlClient, slots: int) -> None:
    """Have N slots; with fewer than now, the highest drain."""
    _carry_out(gateway, "scale", slots=slots)


@click.command()
@click.argument("slot", type=SLOT)
@on_gateway
def drain(gateway: ControlClient, slot: int) -> None:
    """Let the connections of SLOT end, and leave it without a worker until `restart SLOT`."""
    _carry_out(gateway, "drain", slot=slot)


@click.command()
@click.argument("slot", type=SLOT)
@on_gateway
def restart(gateway: ControlClient, slot: int) -> None:
    """Replace the worker of SLOT: the new one is ready before the old one drains."""
    _carry_out(gateway, "restart", slot=slot)


@click.command()
@on_gateway
def stop(gateway: ControlClient) -> None:
    """Stop the gateway as SIGTERM does, and return when it is gone."""
    with _process(gateway.pid) as process:
        code = ExitCode[_requested(gateway, "stop", {})["exit"]]
        if process >= 0:
            select.select([process], [], [], EXIT_SECONDS)
    if code is not ExitCode.OK:
        why = ": what had not ended in time was cut" if code is ExitCode.FORCED_STOP else ""
        error = CommandError(f"the gateway has stopped with {code.name}{why}")
        error.exit_code = code
        raise error
    click.echo("stopped")


def _carry_out(gateway: ControlClient, do: str, **arguments: int) -> None:
    click.echo(printable(str(_requested(gateway, do, arguments)["message"])))


def _requested(gateway: ControlClient, do: str, arguments: dict[str, int]) -> dict[str, Any]:
    try:
        return gateway.request(do, arguments, on_progress=_show_progress, timeout=None)
    except KeyboardInterrupt:
        _leave(do)


def _show_progress(text: str) -> None:
    click.echo(printable(text), err=True)


def _leave(do: str) -> NoReturn:
    click.echo(f"no longer waiting: the gateway goes on with the {do}", err=True)
    raise click.exceptions.Exit(128 + 2)  # as the shell has it for SIGINT


@contextmanager
def _process(pid: int) -> Iterator[int]:
    """A descriptor that is readable once the process has ended; -1 for one that we do not see, or see no more."""
    try:
        process = os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        process = -1
    try:
        yield process
    finally:
        if process >= 0:
            os.close(process)
