"""The page of all commands: what each says of itself, and what ``top`` shows of the gateway in status.json."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from stickygw.cli.main import COMMANDS, stickygw
from stickygw.cli.top_screen import screen

INTRODUCTION = """\
# Commands

<!-- Written by docs/generate.py from the commands' own --help: do not edit. -->

`stickygw run` is the gateway. All commands but `run` and `check` are for one that runs: they reach it by the control
socket in its runtime directory, which only processes of the same user can open. Without `--runtime-dir` they take the
only gateway of this user that runs, and list them if there are several. The variable `STICKYGW_RUNTIME_DIR` names it
too.

Commands that change the gateway print what it does on standard error as it does it, and the outcome on standard output.
Ctrl-C ends the waiting, not the change. How a command ended is its exit code: [all codes](settings.md#exit-codes).
"""

EXAMPLE = Path(__file__).parent / "status.json"
WIDTH, HEIGHT = 80, 20


def commands_page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    with click.Context(stickygw, info_name="stickygw", **stickygw.context_settings) as top_level:
        for name in COMMANDS:
            parts += _of_command(name, top_level)
            if name == "status":
                parts.append(
                    "[status.json](status.json) is what `--json` prints: seconds, bytes, fractions of a CPU.\n"
                )
            elif name == "top":
                parts.append(_fenced(_screen()))
    return "\n".join(parts)


def _of_command(name: str, top_level: click.Context) -> Iterator[str]:
    """Its help, and that of its own commands below it."""
    command = stickygw.get_command(top_level, name)
    assert command is not None
    with click.Context(command, info_name=name, parent=top_level, terminal_width=100) as context:
        yield f"## {name}\n\n{_fenced(command.get_help(context))}"
        for inner_name, inner in (command.commands if isinstance(command, click.Group) else {}).items():
            with click.Context(inner, info_name=inner_name, parent=context, terminal_width=100) as inner_context:
                yield f"### {name} {inner_name}\n\n{_fenced(inner.get_help(inner_context))}"


def _screen() -> str:
    status = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    shown = io.StringIO()
    console = Console(file=shown, width=WIDTH, height=HEIGHT, force_terminal=True, color_system=None)
    console.print(screen(status, Text("reload: slot 0 is ready"), height=HEIGHT), height=HEIGHT)
    return "\n".join(line.rstrip() for line in shown.getvalue().splitlines())


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"
