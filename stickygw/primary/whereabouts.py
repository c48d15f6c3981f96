"""Where a gateway's workers are found by the next primary: what follows from the settings before anything is bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stickygw.config.address import AddressKind, parse_address
from stickygw.config.settings import Settings
from stickygw.errors import CommandError
from stickygw.primary.runtime_dir import port_name

PLACES = ("bind", "runtime_dir", "state_dir")
"""The settings that lead to the workers, and to what they share."""


def known_name(settings: Settings) -> str | None:
    """What the default directories are called, as far as it is known before the addresses are bound. None: it is not,
    and it matters."""
    first = parse_address(settings.bind[0])
    if first.kind is AddressKind.UNIX:
        return port_name(None, Path(first.path))
    return port_name(first.port, None) if first.port or settings.runtime_dir is not None else None


def places_of(settings: Settings) -> dict[str, Any]:
    """Where the workers of a gateway are looked for, as JSON has it."""
    wire = settings.to_wire()
    return {name: wire[name] for name in PLACES}


def refuse_if_moved(configured: Settings, found: bytes) -> None:
    """Raises `CommandError` if the new code would look for the workers where they are not. `found`: the `places_of` its
    settings, in JSON."""
    try:
        places = dict(json.loads(found))
    except (ValueError, TypeError) as error:
        raise CommandError(f"the new code does not say where it would look for the workers: {error}") from error
    for name, ours in places_of(configured).items():
        if places.get(name) != ours:
            raise CommandError(
                f"{name} is {_shown(places.get(name))} now, and was {_shown(ours)}: an upgrade keeps it; to change it, "
                "restart the gateway"
            )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "not given" if value is None else str(value)
