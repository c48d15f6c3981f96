"""One `Settings` from defaults < ``stickygw.toml`` < ``STICKYGW_…`` variables < flags.

pydantic-settings reads, merges and validates; this file remembers who gave what, so that an error can tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stickygw.config.catalogue import SECTIONS, SETTINGS, VARIABLE_PREFIX, allowed, nearest
from stickygw.config.problems import settings_error, wrong_value
from stickygw.config.settings import Settings
from stickygw.errors import SettingsError

CONFIG_FILE = "stickygw.toml"

_NAME_OF_VARIABLE = {setting.variable: name for name, setting in SETTINGS.items()}

_OF_A_SERVICE = re.compile(
    VARIABLE_PREFIX + r"(\w+_)?"
    r"(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=|PORT=(tcp|udp|sctp)://)"
)
"""What Kubernetes puts into every container for a Service called stickygw or stickygw-anything: none of our settings,
unlike a mistaken ``STICKYGW_PORT=8000``."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and who gave those that are not defaults."""

    settings: Settings
    origins: Mapping[str, str]
    """Dotted name → ``file /etc/stickygw.toml``, ``variable STICKYGW_BIND`` or ``flag --bind``."""
    config_file: Path | None
    """The file that was read."""

    def wrong(self, name: str, given: Any, allowed: str) -> str:
        """The line of an error about a value that a rule beyond its type forbids."""
        return wrong_value(name, given, self.origin(name), allowed)

    def origin(self, name: str) -> str:
        """Who gave that setting."""
        return self.origins.get(name, "the default")


def load_settings(
    flags: Mapping[str, Any],
    *,
    spelled: Mapping[str, str] | None = None,
    config_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    directory: Path,
) -> Loaded:
    """The settings that all sources give together.

    `flags` has dotted names; `spelled` says how the user wrote one where that is not ``--its-name``. Without
    a `config_file` (which must exist) ``stickygw.toml`` in `directory` is read if there is one. A variable
    that is empty counts as not set, and those that Kubernetes makes for a Service are not ours.

    Raises `SettingsError` with one line for each wrong value or unknown name.
    """
    file = _existing(config_file, directory)
    in_file = _read(file)
    variables = {name: text for name, text in environ.items() if _is_meant_for_us(name, text)}
    flag = {name: f"flag {(spelled or {}).get(name) or '--' + name.replace('_', '-')}" for name in flags}
    origins = {
        **dict.fromkeys(_names_in(in_file.toml_data), f"file {file}"),
        **{_NAME_OF_VARIABLE[name]: f"variable {name}" for name in variables if name in _NAME_OF_VARIABLE},
        **flag,
    }
    problems = [
        *(_unknown(name, _NAME_OF_VARIABLE, "the environment") for name in variables),
        *(_unknown(name, SETTINGS, flag[name]) for name in flags),
    ]
    sources = (
        InitSettingsSource(_Described, _nested((name, flags[name]) for name in flags if name in SETTINGS)),
        _environment({name: text for name, text in variables.items() if name in _NAME_OF_VARIABLE}),
        in_file,
    )
    try:
        settings = _merged(sources)
    except ValidationError as error:
        problems += _problems_of(error, origins)
    found = [problem for problem in problems if problem is not None]
    if found:
        # Not while the ValidationError is handled: it would stay attached to ours, and it holds the input.
        raise settings_error(found)
    return Loaded(settings, origins, file)


class _Described(BaseSettings, Settings):
    """`Settings` in the form that pydantic-settings' sources ask for."""

    model_config = SettingsConfigDict(
        env_prefix=VARIABLE_PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,  # STICKYGW_COOKIE_SAME_SITE is cookie.same_site
        enable_decoding=False,  # `Settings` itself takes a list from text
    )


def _merged(sources: tuple[PydanticBaseSettingsSource, ...]) -> Settings:
    """What the sources, the strongest first, give together. Raises `ValidationError`."""

    class Layered(_Described):
        @classmethod
        def settings_customise_sources(cls, *_: Any, **__: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            return sources

    return Settings.model_validate(Layered().model_dump())  # a plain `Settings`, which reads no environment


def _environment(variables: Mapping[str, str]) -> EnvSettingsSource:
    source = EnvSettingsSource(_Described)
    source.env_vars = {name.lower(): text for name, text in variables.items()}  # ours, not os.environ's
    return source


def _is_meant_for_us(name: str, text: str) -> bool:
    if not (name.startswith(VARIABLE_PREFIX) and text):
        return False
    return name in _NAME_OF_VARIABLE or not _OF_A_SERVICE.match(f"{name}={text}")


def _existing(config_file: Path | None, directory: Path) -> Path | None:
    if config_file is not None:
        return config_file
    usual = directory / CONFIG_FILE
    return usual if usual.exists() else None


def _read(file: Path | None) -> TomlConfigSettingsSource:
    if file is not None and not file.is_file():
        raise SettingsError(f"{file}: no such settings file")
    try:
        return TomlConfigSettingsSource(_Described, file)
    except (OSError, ValueError) as error:  # ValueError: no TOML, no UTF-8; the message names line and column
        raise SettingsError(f"{file}: {error}") from error


def _nested(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """``redis.url`` becomes ``{"redis": {"url": …}}``."""
    nested: dict[str, Any] = {}
    for name, value in values:
        section, _, inner = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[inner] = value
    return nested


def _names_in(nested: Mapping[str, Any]) -> Iterator[str]:
    for name, value in nested.items():
        if name in SECTIONS and isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _unknown(name: str, known: Iterable[str], origin: str) -> str | None:
    """The line about a name that is not `known`, with the nearest one that is; None for a good name."""
    if name in known:
        return None
    meant = nearest(name, known)
    return f"{name}: no such setting (from {origin})" + (f"; did you mean {meant}?" if meant else "")


def _problems_of(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    problems: dict[str, str | None] = {}  # one for each name: a union complains once for each of its members
    for detail in error.errors(include_url=False):
        location = [str(part) for part in detail["loc"]]
        name = ".".join(location[: 2 if location[0] in SECTIONS else 1])
        origin = origins.get(name, "the default")
        if detail["type"] == "extra_forbidden":
            problem = _unknown(name, SETTINGS, origin)
        elif name in SECTIONS:
            problem = wrong_value(name, detail["input"], origin, f"a section [{name}] with {', '.join(SECTIONS[name])}")
        else:
            problem = wrong_value(name, detail["input"], origin, allowed(name))
        problems.setdefault(name, problem)
    return [problem for problem in problems.values() if problem is not None]
