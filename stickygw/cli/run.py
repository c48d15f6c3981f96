"""``stickygw run``: check everything that can be checked, then become the primary."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import click

from stickygw.apps.loader import parse_target
from stickygw.cli.options import Options, settings_options
from stickygw.cli.sound import sound_settings
from stickygw.cli.store import require_redis
from stickygw.config.settings import Settings
from stickygw.primary.whereabouts import places_of


@click.command()
@click.argument("target")
@click.option("--dry-run", is_flag=True, help="Check all that is checked before the start, and start nothing.")
@click.option("--show-places", is_flag=True, hidden=True)  # for an upgrade: `refuse_if_moved`
@settings_options
def run(target: str, options: Options, dry_run: bool, show_places: bool) -> None:
    """Run the gateway with the application TARGET: module:attribute or path/to/file.py:attribute."""
    directory = Path.cwd()
    loaded = sound_settings(options, directory=directory)
    where = parse_target(target, directory=directory)
    url = loaded.settings.redis.url
    if url is not None:
        require_redis(url.get_secret_value(), origin=loaded.origin("redis.url"))
    if show_places:
        click.echo(json.dumps(places_of(loaded.settings)))
    if not dry_run:
        become_primary(loaded.settings, str(where), sys.argv[1:])


def become_primary(settings: Settings, target: str, arguments: list[str]) -> NoReturn:
    """Replace this process by the primary, which has neither click nor Redis in it.

    The settings travel in an unlinked file of mode 0600, where no other user sees them, unlike arguments; and with them
    our `arguments`, for an upgrade.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        json.dump({"settings": settings.to_wire(), "arguments": arguments}, file)
        file.seek(0)
        fd = file.fileno()
        os.set_inheritable(fd, True)
        sys.stdout.flush()
        # -P: with -m alone, a secrets.py in the current directory would take the standard library's place.
        os.execv(sys.executable, [sys.executable, "-P", "-m", "stickygw.primary", "--settings-fd", str(fd), target])
