"""``stickygw why``: where would this client go, and why?"""

from __future__ import annotations

import ipaddress
import sys
from typing import cast

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import as_json, printable
from stickygw.ipc.control_client import ControlClient
from stickygw.wire.status import Why

MAX_COOKIE_CHARACTERS = 16 * 1024
"""No request head that is longer passes the gateway."""


@click.command()
@click.option(
    "--cookie",
    metavar="-",
    help="Read the client's Cookie lines, or our cookie's value alone, from standard input.",
)
@click.option("--ip", metavar="ADDRESS", help="The client's address.")
@click.option("--key", metavar="KEY", help="The value of the client's affinity key.")
@click.option("--json", "is_json", is_flag=True, help="Print the facts as JSON.")
@on_gateway
def why(gateway: ControlClient, cookie: str | None, ip: str | None, key: str | None, is_json: bool) -> None:
    """Say which slot a client would get now, and the steps that lead there. Nothing is changed.

    Without any option: a client that comes for the first time.
    """
    client = {"cookie": _cookie(cookie), "ip": _address(ip), "key": key}
    facts = cast(Why, gateway.request("why", client))
    if is_json:
        click.echo(as_json(facts))
        return
    slot = "no certain slot" if facts["slot"] is None else f"slot {facts['slot']}"
    click.echo(printable(f"{slot}: {facts['reason']}"))
    for number, step in enumerate(facts["steps"], 1):
        click.echo(printable(f"{number:>3}. {step}"))


def _cookie(option: str | None) -> str | None:
    if option is None:
        return None
    if option != "-":
        # Arguments are there for all users to see, and stay in the shell's history.
        raise click.UsageError("a cookie is a credential: write --cookie - and give it on standard input")
    if sys.stdin.isatty():
        return str(click.prompt("cookie", hide_input=True, err=True))
    return sys.stdin.read(MAX_COOKIE_CHARACTERS).strip()


def _address(option: str | None) -> str | None:
    try:
        address = None if option is None else ipaddress.ip_address(option)
    except ValueError:
        raise click.UsageError(f"--ip: {option!r} is no IP address") from None
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address  # as clients that proxies name so are known
    return None if address is None else str(address)
