"""``stickygw sessions``: what is stored of the visitors, and who of them is connected where.

The sessions themselves are read from the store, whose place the gateway tells: only what is in use costs the workers
anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import as_json, printable
from stickygw.errors import CommandError
from stickygw.ipc.control_client import ControlClient
from stickygw.observability.words import counted
from stickygw.types import SessionId

if TYPE_CHECKING:
    from stickygw.cli.session_facts import SessionDesk, SessionFacts

TABLE_LIMIT = 100


class _SessionIdType(click.ParamType):
    name = "ID"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> SessionId:
        from stickygw.cli.session_facts import is_session_id

        if not is_session_id(value):
            self.fail(f"{value!r}: an id is 32 lowercase hex digits", param, ctx)
        return SessionId(value)


@click.group(invoke_without_command=True)
@click.option("--json", "is_json", is_flag=True, help="Print the count as JSON.")
@click.pass_context
@on_gateway
def sessions(ctx: click.Context) -> None: ...


# --- from here on with the store, and so with an event loop -----------------------------------------------------------
