"""``stickygw publish``: a message for the members of a room, for a user or for a session."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import cast

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import as_json, printable
from stickygw.errors import PublishError, RoomNameError, StoreError
from stickygw.ipc.control_client import ControlClient
from stickygw.observability.words import counted
from stickygw.wire.status import RoomStorePlace

STORE_SECONDS = 5.0
"""How long the store may take for each step."""


@click.command()
@click.argument("words", metavar="[ROOM] MESSAGE", nargs=-1, required=True)
@click.option("--user", metavar="NAME", help="To all connections of this user, instead of a room's members.")
@click.option("--session", metavar="ID", help="To all WebSockets of this session, instead of a room's members.")
@click.option("--binary", "is_binary", is_flag=True, help="MESSAGE is base64; its bytes are sent as a binary message.")
@click.option("--json", "is_json", is_flag=True, help="Print the facts as JSON.")
@on_gateway
def publish(
    gateway: ControlClient,
    words: tuple[str, ...],
    user: str | None,
    session: str | None,
    is_binary: bool,
    is_json: bool,
) -> None:
    """Send a message to the members of a room.

    On all gateways that share the store. MESSAGE is sent as it is written; an application with codec="json" has clients
    that expect JSON. How many get it, nobody knows.
    """
    kind, name, text = _whom(words, user=user, session=session)
    message = _decoded(text) if is_binary else text
    try:
        size = len(message.encode()) if isinstance(message, str) else len(message)
    except UnicodeEncodeError:
        raise click.UsageError("MESSAGE: not UTF-8; --binary sends any bytes") from None
    _publish(cast(RoomStorePlace, gateway.request("rooms.store")), kind, name, message)
    facts = {kind: name, "bytes": size}
    click.echo(as_json(facts) if is_json else printable(f"{counted(size, 'byte')} published to {kind} {name}"))


def _whom(words: Sequence[str], *, user: str | None, session: str | None) -> tuple[str, str, str]:
    """room, user or session; its name; and the message."""
    if user is not None and session is not None:
        raise click.UsageError("--user and --session: give one of them")
    if user is None and session is None:
        if len(words) != 2:
            raise click.UsageError("a ROOM and a MESSAGE are needed; a message with spaces is put in quotes")
        return "room", words[0], words[1]
    if len(words) != 1:
        raise click.UsageError("with --user or --session a MESSAGE is all that is needed; put it in quotes")
    return ("session", session, words[0]) if session is not None else ("user", cast(str, user), words[0])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise click.UsageError(f"MESSAGE: not base64: {error}") from None


def _publish(place: RoomStorePlace, kind: str, name: str, message: str | bytes) -> None:
    from stickygw.publisher import Publisher  # redis-py takes longer to import than the command line to answer --help

    secret = None if place["secret"] is None else place["secret"].encode()  # bytes: it is one, commas and all
    publisher = Publisher(place["url"], secret=secret, prefix=place["prefix"], timeout=STORE_SECONDS)
    send = {"room": publisher.publish, "user": publisher.send_to_user, "session": publisher.send_to_session}[kind]
    with publisher:
        try:
            send(name, message)
        except (RoomNameError, ValueError) as error:
            raise click.UsageError(str(error)) from error
        except PublishError as error:
            raise StoreError(str(error)) from error
