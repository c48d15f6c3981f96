"""Which running gateway a command is for, and the option that names it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from stickygw.cli.words import printable
from stickygw.config.places import CONTROL_SOCKET, ROLL, default_runtime_base
from stickygw.errors import CommandError, NoGatewayError
from stickygw.ipc.control_client import ControlClient
from stickygw.observability.words import counted
from stickygw.primary.roll import RollFile

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
        try:
            return ControlClient(runtime_dir.absolute() / CONTROL_SOCKET)
        except NoGatewayError as error:
            raise NoGatewayError(f"{error}{_left_in(runtime_dir)}") from error
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
    left = "".join(_left_in(file.parent) for file in sorted(base.glob(f"*/{ROLL}")))
    other = "if it has another runtime directory, name it: --runtime-dir DIR"
    return f"no gateway runs: none answers in {base}/*; {other}{left}"


def _left_in(runtime_dir: Path) -> str:
    """What is to be known of the workers of a killed primary, as a further line; "": there are none."""
    workers = len(RollFile(runtime_dir / ROLL).read().pids)
    if not workers:
        return ""
    return (
        f"\n{counted(workers, 'worker')} of a killed primary still at work in {runtime_dir}: start the gateway "
        "again, which adopts them, or with --no-adopt, which ends them"
    )


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
