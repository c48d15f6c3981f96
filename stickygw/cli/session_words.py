"""Sessions as people and programs read them: a line of a table, and the values of fields."""

from __future__ import annotations

import base64
from typing import Any

from stickygw.cli.session_facts import SessionFacts
from stickygw.cli.words import duration, printable, size
from stickygw.errors import SessionValueError
from stickygw.sessions.values import unpack

MAX_SHOWN = 200
"""Characters of a value that are shown; ``--json`` has all of it."""

HEADER = f"{'id':32} {'age':>6} {'ttl':>6} {'fields':>6} {'bytes':>6} {'conns':>6}  slots"


def line(facts: SessionFacts) -> str:
    """One session, below `HEADER`."""
    connections = facts["connections"]
    age, ttl = (None if seconds is None else duration(seconds) for seconds in (facts["age"], facts["ttl"]))
    slots = ",".join(map(str, connections)) or "–"
    amounts = f"{facts['fields']:>6} {size(facts['bytes']):>6} {sum(connections.values()):>6}"
    return f"{facts['id']:32} {age or '–':>6} {ttl or '–':>6} {amounts}  {slots}"


def shown(field: str, packed: bytes) -> str:
    """One field on one line, cut."""
    try:
        value = repr(unpack(field, packed))
    except SessionValueError:
        value = f"no msgpack: {packed!r}"
    text = printable(f"{field}: {value}")
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(packed)} bytes)"


def values(fields: dict[str, bytes]) -> dict[str, Any]:
    """All fields for ``--json``. Bytes are ``{"base64": …}``, and another program's, which are no msgpack,
    ``{"packed_base64": …}``."""
    return {_text(field): _value(field, packed) for field, packed in sorted(fields.items())}


def _value(field: str, packed: bytes) -> Any:
    try:
        return _without_bytes(unpack(field, packed))
    except SessionValueError:
        return {"packed_base64": base64.b64encode(packed).decode()}


def _without_bytes(value: Any) -> Any:
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case list():
            return [_without_bytes(inner) for inner in value]
        case dict():
            return {key: _without_bytes(inner) for key, inner in value.items()}
        case _:
            return value


def _text(field: str) -> str:
    """Another program's name may be no UTF-8."""
    return field.encode(errors="surrogateescape").decode(errors="backslashreplace")
