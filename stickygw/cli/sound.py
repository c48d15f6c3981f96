"""Settings that have passed every check there is without opening a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stickygw.cli.options import Options
from stickygw.config.checks import broken_rules
from stickygw.config.problems import settings_error
from stickygw.config.sources import Loaded, load_settings
from stickygw.routing.forwarded import TrustedProxies
from stickygw.routing.keys import parse_key
from stickygw.routing.learning import parse_learn
from stickygw.routing.load import parse_balance


def sound_settings(options: Options, *, directory: Path) -> Loaded:
    """The settings of `options`, ``stickygw.toml`` in `directory` and the environment.

    Raises `SettingsError` with one line for each thing that is wrong.
    """
    loaded = load_settings(options.flags, spelled=options.spelled, config_file=options.config_file, directory=directory)
    problems = [*broken_rules(loaded), *_routing_problems(loaded)]
    if problems:
        raise settings_error(problems)
    return loaded


def _routing_problems(loaded: Loaded) -> Iterator[str]:
    for text in loaded.settings.keys:
        try:
            parse_key(text)
        except ValueError as error:
            yield f"keys: {error} (from {loaded.origin('keys')})"
    for text in loaded.settings.learn:
        try:
            parse_learn(text)
        except ValueError as error:
            yield f"learn: {error} (from {loaded.origin('learn')})"
    for text in loaded.settings.trusted_proxies:
        try:
            TrustedProxies([text])
        except ValueError as error:
            yield f"trusted_proxies: {error} (from {loaded.origin('trusted_proxies')})"
    try:
        parse_balance(loaded.settings.balance_by)
    except ValueError as error:
        yield f"balance_by: {error} (from {loaded.origin('balance_by')})"
