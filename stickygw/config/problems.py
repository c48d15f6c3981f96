"""The words of a settings error: each line names a setting, what was given, by whom, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stickygw.config.catalogue import SETTINGS
from stickygw.config.redacted import redacted
from stickygw.errors import SettingsError

MAX_SHOWN = 200
"""Characters of a given value that an error repeats."""


def wrong_value(name: str, given: Any, origin: str, allowed: str) -> str:
    """The line about a value that is not allowed. `name` is a setting's or a section's."""
    return f"{name}: {_shown(name, given)} is not allowed (from {origin}); allowed: {allowed}"


def settings_error(problems: Sequence[str]) -> SettingsError:
    """The error that tells all of them, one a line."""
    return SettingsError("\n".join(problems))


def _shown(name: str, given: Any) -> str:
    """The value as JSON, which escapes what could forge a line; without secrets."""
    if name == "redis.url" and isinstance(given, str):
        return json.dumps(redacted(given))
    if name not in SETTINGS or SETTINGS[name].is_secret:  # what stands for a whole section may hold one
        return "the value (hidden)"
    text = redacted(json.dumps(given, default=str))
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
