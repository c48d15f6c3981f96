"""``stickygw tell``: a message for the application's ``on_tell`` handlers, or a question to them."""

from __future__ import annotations

import json
from typing import Any, cast

import click

from stickygw.cli.gateway import on_gateway
from stickygw.cli.words import as_json, as_json_line, printable
from stickygw.errors import CommandError
from stickygw.ipc.control_client import ANSWER_SECONDS, ControlClient
from stickygw.wire.status import Answers, Told
from stickygw.wire.tell import LONGEST_ASK_SECONDS

ASK_SECONDS = 5.0
PLACES = ("all", "least_loaded")


@click.command()
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@click.option("--to", metavar="all|SLOT|least_loaded", default="all", show_default=True, help="Which workers get it.")
@click.option("--ask", "is_question", is_flag=True, help="Wait for their answers and print them.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=LONGEST_ASK_SECONDS),
    default=ASK_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long --ask waits.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the facts as JSON.")
@on_gateway
def tell(
    gateway: ControlClient, name: str, payload: str, to: str, is_question: bool, timeout: float, is_json: bool
) -> None:
    """Give the workers' `on_tell("NAME")` handlers a payload: any JSON, null without one."""
    message = {"name": name, "payload": _payload(payload), "to": _place(to)}
    if is_question:
        facts = gateway.request("ask", {**message, "timeout": timeout}, timeout=timeout + ANSWER_SECONDS)
        _show_answers(cast(Answers, facts), is_json=is_json)
    else:
        _show_told(cast(Told, gateway.request("tell", message)), is_json=is_json)


def _show_told(facts: Told, *, is_json: bool) -> None:
    workers = facts["told"]
    click.echo(as_json(facts) if is_json else f"told {workers} worker{'' if workers == 1 else 's'}")


def _show_answers(facts: Answers, *, is_json: bool) -> None:
    answers = sorted(facts["answers"].items())
    errors = [f"slot {slot}: {answer['error']}" for slot, answer in answers if "error" in answer]
    if is_json:
        click.echo(as_json(facts))
    else:
        for slot, answer in answers:
            if "error" not in answer:
                click.echo(printable(f"slot {slot}: {as_json_line(answer['payload'])}"))
    if errors:
        raise CommandError(printable("; ".join(errors)))


def _payload(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"JSON: {error}; a text has quotes of its own: '\"{text}\"'") from None


def _place(to: str) -> int | str:
    if to in PLACES:
        return to
    if to.isascii() and to.isdecimal():
        return int(to)
    raise click.UsageError(f"--to: all, least_loaded or a slot's number, not {to!r}")
