"""Every setting by its dotted name (``redis.url``), as `Settings` declares it: for errors and documents."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, SecretStr

from stickygw.config.settings import Settings

VARIABLE_PREFIX = "STICKYGW_"


@dataclass(frozen=True, slots=True)
class Setting:
    """What `Settings` says about one setting. `name` is dotted."""

    name: str
    default: Any
    meaning: str
    is_secret: bool
    """The value, or a part of it, must never be shown."""

    @property
    def variable(self) -> str:
        """The environment variable that gives it."""
        return VARIABLE_PREFIX + self.name.replace(".", "_").upper()


def _settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings_of(field.annotation, f"{name}.")
        else:
            is_secret = _mentions(field.annotation, SecretStr)
            yield Setting(prefix + name, field.default, field.description or "", is_secret)


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))


SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _settings_of(Settings)}

SECTIONS: dict[str, tuple[str, ...]] = {}
"""Each section's name, with the names in it."""
for _name in SETTINGS:
    if "." in _name:
        _section, _inner = _name.split(".")
        SECTIONS[_section] = (*SECTIONS.get(_section, ()), _inner)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was probably meant to be."""
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def allowed(name: str) -> str:
    """What the setting may be, in words: ``a number above 0 and at most 86400``."""
    schema = Settings.model_json_schema()
    section, _, inner = name.rpartition(".")
    if section:
        schema = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
    return _in_words(schema["properties"][inner])


def _in_words(schema: dict[str, Any]) -> str:
    match schema:
        case {"anyOf": options}:
            return " or ".join(_in_words(option) for option in options if option.get("type") != "null")
        case {"const": value}:
            return json.dumps(value)
        case {"enum": values}:
            return "one of " + ", ".join(values)
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "integer" | "number" as kind}:
            return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
        case {"type": "array"}:
            return "a list" + (" of at least one" if schema.get("minItems") else "")
        case {"pattern": pattern}:
            return f"text that matches {pattern}"
        case {"format": "path"}:
            return "a path"
        case _:
            return "text"


def _bounds(schema: dict[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    words = {"exclusiveMinimum": "above", "minimum": "at least", "maximum": "at most"}
    bounds = [f"{word} {schema[key]}" for key, word in words.items() if key in schema]
    return (" " + " and ".join(bounds)) if bounds else ""
