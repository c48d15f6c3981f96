"""Which running gateway a command is for, and the option that names it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from stickygw.cli.words import printable
from stickygw.config.places import CONTROL_SOCKET, default_runtime_base
from stickygw.errors import CommandError, NoGatewayError
from stickygw.ipc.control_client import ControlClient

LOOK_SECONDS = 2.0
"""How long each of several gateways may take to say who it is."""

Command = Callable[..., None]

runtime_dir_option = click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path),
    envvar="STICKYGW_RUNTIME_DIR",
    metavar="DIR",
    help="The gateway's runtime directory; without it, the only gateway of this user that runs.",
)
"""What `find_gateway` takes."""


def on_gateway(command: Command) -> Command:
    """Give `command` the option ``--runtime-dir`` and, as its argument `gateway`, the `ControlClient` of that one."""

    @runtime_dir_option
    @functools.wraps(command)
    def with_gateway(*, runtime_dir: Path | None, **given: Any) -> None:
        with find_gateway(runtime_dir) as gateway:
            command(gateway=gateway, **given)

    return with_gateway


def find_gateway(runtime_dir: Path | None) -> ControlClient:
    """The gateway in `runtime_dir`, or the only one in the default places. Raises `NoGatewayError`."""
    if runtime_dir is not None:
        return ControlClient(runtime_dir.absolute() / CONTROL_SOCKET)
    base = default_runtime_base()
    found = list(_listening(base))
    if len(found) == 1:
        return found[0]
    try:
        raise NoGatewayError(_several(found) if found else _none(base))
    finally:
        for gateway in found:
            gateway.close()


def _listening(base: Path) -> Iterator[ControlClient]:
    for path in sorted(base.glob(f"*/{CONTROL_SOCKET}")):
        try:
            yield ControlClient(path)
        except NoGatewayError:
            continue  # what a gateway that was killed has left behind


def _none(base: Path) -> str:
    return f"no gateway runs: none answers in {base}/*; if it has another runtime directory, name it: --runtime-dir DIR"


def _several(gateways: list[ControlClient]) -> str:
    lines = [f"{len(gateways)} gateways run: name one"]
    lines += [f"  --runtime-dir {gateway.path.parent}  {_who(gateway)}" for gateway in gateways]
    return "\n".join(lines)


def _who(gateway: ControlClient) -> str:
    try:
        facts = gateway.request("status", timeout=LOOK_SECONDS)
    except CommandError as error:
        return f"(pid {gateway.pid}: {error})"
    return printable(f"{' '.join(facts['addresses'])}  pid {facts['pid']}  {facts['target']}")
