"""``stickygw check``: would ``stickygw run`` start? It binds nothing and asks no Redis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stickygw.apps.loader import load_target
from stickygw.cli.options import Options, settings_options
from stickygw.cli.sound import sound_settings
from stickygw.config.cpus import excess_workers, worker_count
from stickygw.config.redacted import redacted
from stickygw.config.settings import Settings
from stickygw.config.sources import Loaded
from stickygw.observability.words import counted

if TYPE_CHECKING:
    from stickygw.apps.native.app import App


@click.command()
@click.argument("target")
@settings_options
def check(target: str, options: Options) -> None:
    """Say whether the settings are sound and the application TARGET loads; the exit code says it too."""
    directory = Path.cwd()
    loaded = sound_settings(options, directory=directory)
    settings = loaded.settings
    app = load_target(target, directory=directory, app_dir=settings.app_dir, is_factory=settings.factory)
    for name, value in _summary(loaded, target, app):
        click.echo(f"{name:<9} {value}")
    if (excess := excess_workers(loaded.settings.workers)) is not None:
        click.echo(f"warning   {excess}")


def _summary(loaded: Loaded, target: str, app: App) -> list[tuple[str, str]]:
    settings = loaded.settings
    return [
        ("settings", str(loaded.config_file or "no file")),
        ("bind", ", ".join(settings.bind)),
        ("workers", _workers(settings)),
        ("store", _store(settings)),
        ("keys", _keys(settings)),
        ("app", f"{target}, {_kind(app)}"),
    ]


def _kind(app: App) -> str:
    """What `app` is made of."""
    count = app.handlers.count
    handlers = counted(count, "handler")
    if app.http is None:
        return handlers
    module, name = type(app.http).__module__, type(app.http).__qualname__
    asgi = "an ASGI application" if name == "function" else f"an ASGI application ({module}.{name})"
    return f"{handlers} and {asgi}" if count else asgi


def _keys(settings: Settings) -> str:
    return ", ".join([*(f"{learn} (learnt)" for learn in settings.learn), *settings.keys])


def _workers(settings: Settings) -> str:
    count = worker_count(settings.workers)
    return f"{count} ({settings.workers})" if isinstance(settings.workers, str) else str(count)


def _store(settings: Settings) -> str:
    url = settings.redis.url
    return "embedded Valkey, for this machine only" if url is None else redacted(url.get_secret_value())
