"""``stickygw sessions``: what is stored of the visitors, and who of them is connected where.

The sessions themselves are read from the store, whose place the gateway tells; the workers are asked only who is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from stickygw.cli.gateway import find_gateway, on_gateway, runtime_dir_option
from stickygw.cli.words import as_json, printable
from stickygw.errors import CommandError
from stickygw.ipc.control_client import ControlClient
from stickygw.observability.words import counted
from stickygw.types import SessionId

if TYPE_CHECKING:
    from stickygw.cli.session_facts import SessionDesk

# redis-py takes longer to import than the command line to answer --help: what needs it is imported where it runs.

TABLE_ROWS = 100
"""How many sessions a table has when nobody says."""


@click.group(invoke_without_command=True, options_metavar="[OPTIONS]", subcommand_metavar="[list|show|kill]")
@click.option("--json", "is_json", is_flag=True, help="Print the facts as JSON.")
@runtime_dir_option
@click.pass_context
def sessions(ctx: click.Context, is_json: bool, runtime_dir: Path | None) -> None:
    """Say how many sessions are stored and how many each slot has in use; or list, show or end them."""
    if ctx.invoked_subcommand is None:
        with find_gateway(runtime_dir) as gateway:
            asyncio.run(_count(gateway, is_json=is_json))
    elif any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ctx.params):
        raise click.UsageError(f"write the options behind the command: stickygw sessions {ctx.invoked_subcommand} …")


@sessions.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"How many; 0: all.  [default: {TABLE_ROWS}; with --json: all]",
)
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one session a line, as they are read.")
@on_gateway
def list_sessions(gateway: ControlClient, limit: int | None, is_json: bool) -> None:
    """List stored sessions, in no order.

    Of each: its id, age, time to live, number of fields, bytes in the store, open WebSockets, and their slots. While
    the store grows or shrinks a session may come twice.
    """
    if limit is None:
        limit = 0 if is_json else TABLE_ROWS
    asyncio.run(_list_json(gateway, limit or None) if is_json else _list_table(gateway, limit or None))


@sessions.command("show")
@click.argument("id", metavar="ID")
@click.option("--json", "is_json", is_flag=True, help="Print all of it as JSON; bytes as base64.")
@on_gateway
def show_session(gateway: ControlClient, id: str, is_json: bool) -> None:
    """Show a session and what the application keeps in it."""
    asyncio.run(_show(gateway, *_checked([id]), is_json=is_json))


@sessions.command("kill")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "is_json", is_flag=True, help="Print the facts as JSON.")
@on_gateway
def kill_sessions(gateway: ControlClient, ids: tuple[str, ...], is_json: bool) -> None:
    """End sessions, and close their WebSockets.

    On all gateways that share the store; with the close code 4401. An id of which nothing is stored is refused from
    now on as well, and makes the exit code COMMAND.
    """
    asyncio.run(_kill(gateway, _checked(ids), is_json=is_json))


def _checked(ids: Sequence[str]) -> list[SessionId]:
    from stickygw.cli.session_facts import is_session_id

    for id in ids:
        if not is_session_id(id):
            raise click.UsageError(f"{id!r}: a session id is 32 lowercase hex digits")
    return [SessionId(id) for id in ids]


async def _count(gateway: ControlClient, *, is_json: bool) -> None:
    from stickygw.cli.session_facts import session_desk

    async with session_desk(gateway) as desk:
        stored, in_use = await desk.count(), desk.in_use()
        if is_json:
            click.echo(as_json({"stored": stored, "in_use": in_use}))
        else:
            where = ", ".join(f"{number} on slot {slot}" for slot, number in sorted(in_use.items())) or "unknown"
            click.echo(f"{counted(stored, 'session')} stored; in use: {where}")
        _tell_silent(desk)


async def _list_table(gateway: ControlClient, limit: int | None) -> None:
    from stickygw.cli.session_facts import session_desk
    from stickygw.cli.session_words import HEADER, line

    async with session_desk(gateway) as desk:
        click.echo(HEADER)
        number = 0
        async for batch in desk.listed(limit):
            click.echo("\n".join(map(line, batch)))
            number += len(batch)
        if number == limit:
            click.echo("there may be more: --limit 0 lists all", err=True)
        _tell_silent(desk)


async def _list_json(gateway: ControlClient, limit: int | None) -> None:
    """A batch at a time: however many there are, few are in memory."""
    from stickygw.cli.session_facts import session_desk
    from stickygw.cli.words import as_json_line

    async with session_desk(gateway) as desk:
        separator = "[\n"
        async for batch in desk.listed(limit):
            for facts in batch:
                click.echo(separator + as_json_line(facts), nl=False)
                separator = ",\n"
        click.echo("[]" if separator == "[\n" else "\n]")
        _tell_silent(desk)


async def _show(gateway: ControlClient, id: SessionId, *, is_json: bool) -> None:
    from stickygw.cli.session_facts import session_desk
    from stickygw.cli.session_words import HEADER, line, shown, values

    async with session_desk(gateway) as desk:
        found, fields = await desk.described([id]), await desk.fields(id)
        if not found or fields is None:
            raise CommandError(f"{id}: there is no such session")
        if is_json:
            click.echo(as_json({**found[0], "values": values(fields)}))
        else:
            click.echo(f"{HEADER}\n{line(found[0])}\n")
            for field, packed in sorted(fields.items()):
                click.echo(shown(field, packed))
        _tell_silent(desk)


async def _kill(gateway: ControlClient, ids: Sequence[SessionId], *, is_json: bool) -> None:
    from stickygw.cli.session_facts import session_desk

    ended: list[SessionId] = []
    missing: list[SessionId] = []
    async with session_desk(gateway) as desk:
        for id in dict.fromkeys(ids):
            was_stored = await desk.end(id)
            (ended if was_stored else missing).append(id)
            if was_stored and not is_json:
                click.echo(f"{id}: ended")
    if is_json:
        click.echo(as_json({"ended": ended, "missing": missing}))
    if missing:
        raise CommandError("\n".join(f"{id}: there is no such session" for id in missing))


def _tell_silent(desk: SessionDesk) -> None:
    for slot, why in sorted(desk.silent.items()):
        click.echo(printable(f"slot {slot} did not say what it has in use: {why}"), err=True)
