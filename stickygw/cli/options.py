"""The options that give settings, the same for every command that needs them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from stickygw.config.catalogue import SETTINGS

FLAGS = {
    "bind": "--bind",
    "workers": "--workers",
    "redis.url": "--redis",
    "keys": "--key",
    "learn": "--learn",
    "first_visit": "--first-visit",
    "runtime_dir": "--runtime-dir",
    "state_dir": "--state-dir",
    "factory": "--factory",
    "app_dir": "--app-dir",
    "log_level": "--log-level",
    "watch": "--watch",
    "adopt": "--no-adopt",
}
"""Setting → its flag. Every other setting is given with ``--set``."""

_PARAMETERS = frozenset(name.replace(".", "_") for name in FLAGS)
_REPEATED = ("bind", "keys", "learn")
_SHOWN_AS = {
    "workers": "N|auto|auto-1",
    "redis.url": "URL",
    "keys": "KEY",
    "learn": "KEY",
    "bind": "ADDRESS",
    "runtime_dir": "DIR",
    "state_dir": "DIR",
    "app_dir": "DIR",
}

_NO = {"adopt": "End the workers that a killed primary has left, instead of taking them over with their connections."}
"""What the flag of a setting says that is true without it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user wrote. Values are the text of the command line: `Settings` says what is allowed."""

    flags: dict[str, Any]
    """Setting → value."""
    spelled: dict[str, str]
    """Setting → how the user wrote the flag."""
    config_file: Path | None


Command = Callable[..., None]


def settings_options(command: Command) -> Command:
    """Give `command` the options; it gets them as one argument, `options`."""

    @functools.wraps(command)
    def with_options(*, config_file: Path | None, pairs: tuple[str, ...], **given: Any) -> None:
        own = {name: given.pop(name) for name in list(given) if name not in _PARAMETERS}
        command(options=_options(given, pairs, config_file), **own)

    decorated: Command = with_options
    for decorate in reversed([*(_option(name, flag) for name, flag in FLAGS.items()), *_OTHERS]):
        decorated = decorate(decorated)
    return decorated


_OTHERS: list[Callable[[Command], Command]] = [
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The settings file, instead of stickygw.toml in the current directory.",
    ),
    click.option(
        "--set",
        "pairs",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other setting: --set redis.prefix=chat.",
    ),
]


def _parameter(name: str) -> str:
    return name.replace(".", "_")


def _option(name: str, flag: str) -> Callable[[Command], Command]:
    if flag.startswith("--no-"):
        return click.option(flag, _parameter(name), flag_value=False, default=None, help=_NO[name])
    if isinstance(SETTINGS[name].default, bool):
        return click.option(flag, _parameter(name), is_flag=True, default=None, help=SETTINGS[name].meaning)
    return click.option(
        flag,
        _parameter(name),
        multiple=name in _REPEATED,
        metavar=_SHOWN_AS.get(name, "WORD"),
        help=SETTINGS[name].meaning + (" May be repeated." if name in _REPEATED else ""),
    )


def _options(given: dict[str, Any], pairs: Sequence[str], config_file: Path | None) -> Options:
    flags = {name: given[_parameter(name)] for name in FLAGS if given[_parameter(name)] not in (None, ())}
    spelled = {name: FLAGS[name] for name in flags}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.UsageError(f"--set wants NAME=VALUE, not {name!r}")
        if name in FLAGS and spelled.get(name) == FLAGS[name]:
            raise click.UsageError(f"{name} is given twice: with {FLAGS[name]} and with --set")
        flags[name] = value
        spelled[name] = f"--set {name}"
    return Options(flags, spelled, config_file)
