"""The command ``stickygw``: which subcommands there are, and how an error ends the process.

A subcommand's module is imported when it is called, so that one command does not pay for the others.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import traceback
from typing import NoReturn

import click

from stickygw.cli.words import printable
from stickygw.errors import ExitCode, OperatorError

COMMANDS = {
    "run": "stickygw.cli.run",
    "check": "stickygw.cli.check",
    "status": "stickygw.cli.status",
    "top": "stickygw.cli.top",
    "why": "stickygw.cli.why",
    "reload": "stickygw.cli.steering",
    "scale": "stickygw.cli.steering",
    "drain": "stickygw.cli.steering",
    "restart": "stickygw.cli.steering",
    "stop": "stickygw.cli.steering",
    "upgrade": "stickygw.cli.upgrade",
    "tell": "stickygw.cli.tell",
    "publish": "stickygw.cli.publish",
    "sessions": "stickygw.cli.sessions",
}
"""Name → the module that defines it, as a function of that name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command


def _show_version(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked:
        return
    try:
        version = importlib.metadata.version("stickygw")
    except importlib.metadata.PackageNotFoundError:
        version = "from a source tree that is not installed"
    click.echo(f"stickygw {version}")
    ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def stickygw() -> None:
    """A WebSocket gateway: one port, several worker processes, each client always on the same worker."""


def main() -> NoReturn:
    """Run the command line and exit, with an `OperatorError`'s own code and its lines on standard error."""
    try:
        stickygw(prog_name="stickygw")
    except OperatorError as error:
        if error.__cause__ is not None and error.exit_code is ExitCode.TARGET:
            traceback.print_exception(error.__cause__)  # the application's own exception
        for line in str(error).splitlines():
            click.echo(f"error: {printable(line)}", err=True)
        sys.exit(error.exit_code)
    except Exception:  # noqa: BLE001 - the last resort, and it tells all
        traceback.print_exc()
        click.echo("error: this is a defect in stickygw", err=True)
        sys.exit(ExitCode.INTERNAL)
    sys.exit(ExitCode.OK)
