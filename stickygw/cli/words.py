"""Figures and texts as people read them, short enough for a table on 80 columns."""

from __future__ import annotations

import json
from typing import Any


def duration(seconds: float) -> str:
    """At most 6 characters for less than 100 days: 42s, 5m03s, 4h12m, 3d04h."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if not minutes:
        return f"{whole}s"
    if not hours:
        return f"{minutes}m{whole % 60:02}s"
    if not days:
        return f"{hours}h{minutes % 60:02}m"
    return f"{days}d{hours % 24:02}h"


def delay(seconds: float) -> str:
    """At most 5 characters: 0ms, 250ms, 1.2s, 120s."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    return f"{seconds:.1f}s" if seconds < 99.95 else f"{seconds:.0f}s"


def count(number: float) -> str:
    """At most 5 characters: 0, 0.4, 1234, 12.3k, 1.5M."""
    if number != int(number) and number < 9.95:
        return f"{number:.1f}"
    if number < 9999.5:
        return f"{number:.0f}"
    for unit in "kMG":
        number /= 1000
        if number < 999.5 or unit == "G":
            break
    return f"{number:.1f}{unit}" if number < 99.95 else f"{number:.0f}{unit}"


def size(number: int) -> str:
    """Bytes, at most 5 characters: 512B, 85.1M, 1.2G; 1024 of one unit make the next."""
    if number < 1000:
        return f"{number}B"
    amount = float(number)
    for unit in "KMGT":
        amount /= 1024
        if amount < 999.5 or unit == "T":
            break
    return f"{amount:.1f}{unit}" if amount < 99.95 else f"{amount:.0f}{unit}"


def printable(text: str) -> str:
    """`text` on one line, without what would command the terminal: applications write some of what is shown."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def as_json(facts: Any) -> str:
    """For ``--json``, and for payloads: what msgpack carries beyond JSON becomes text."""
    return json.dumps(_with_json_keys(facts), indent=2, ensure_ascii=False, default=_text)


def as_json_line(payload: Any) -> str:
    """The same on one line."""
    return json.dumps(_with_json_keys(payload), ensure_ascii=False, default=_text)


def _with_json_keys(value: Any) -> Any:
    """`json` gives what it does not know to ``default``, but not keys."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, str | int | float | None) else _text(key): _with_json_keys(inner)
            for key, inner in value.items()
        }
    return [_with_json_keys(inner) for inner in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
