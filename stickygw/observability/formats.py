"""How a log record becomes a line: text for people, or one JSON object. Whatever was logged, a line comes out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import indent
from typing import Any

from stickygw.observability.context import connection_id

OURS = "stickygw"
HANDLERS = "stickygw.app"
"""The one logger of ours that speaks from inside a connection's handlers. What the others do, flushing outboxes and
pipelines for instance, they do for many connections, in the context of whichever came first."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could break a line, command a terminal, or turn the reading direction around."""
_UNSAFE_IN_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN_VALUE = re.compile(r"[!#-<>-~]+")
"""What needs no quotes as a value: ASCII without space, quote and equals sign."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """The process whose records these are; the primary has no slot and no generation."""

    process: str
    slot: int | None = None
    generation: int | None = None


def fields(**values: Any) -> dict[str, Any]:
    """For ``log.info("moved", extra=fields(slot=1))``: in text the line ends in ``slot=1``, in JSON it is a key."""
    return {"fields": values}


class TextFormat(logging.Formatter):
    """``12:00:01.123 ERROR   worker 0 g1 [4711]: a handler raised connection=9f2c…``, its traceback below, indented.

    ``g1`` is the generation, the number in brackets the process id. What a client may have put into a message is
    escaped: it neither begins a line nor commands the terminal.
    """

    def __init__(self, speaker: Speaker) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._who = speaker.process
        if speaker.slot is not None:
            self._who += f" {speaker.slot} g{speaker.generation}"

    def format(self, record: logging.LogRecord) -> str:
        values = _fields(record)
        if (connection := _connection(record)) is not None:
            values = {**values, "connection": connection}
        parts = [
            f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}",
            f"{record.levelname:<7}",
            f"{self._who} [{record.process}]:",
            *([] if _is_ours(record) else [f"{_escaped(record.name)}:"]),
            _escaped(_message(record)),
            *(f"{_escaped(str(name))}={_value(value)}" for name, value in values.items() if value is not None),
        ]
        below = _exception(self, record)
        # Indented: an exception's own text may hold lines, and none of them is to look like a record.
        return " ".join(parts) + (indent("\n" + _UNSAFE_IN_LINES.sub(_escape, below), "  ") if below else "")


class JsonFormat(logging.Formatter):
    """One object: time (UTC), level, logger, message, process, slot, pid, generation, connection, the record's own
    fields, exception. A key without a value is left out."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self._speaker = speaker

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "process": self._speaker.process,
        }
        replaceable = {"slot": self._speaker.slot, "pid": record.process, "generation": self._speaker.generation}
        entry = {**head, **replaceable, "connection": _connection(record), **_fields(record), **head}
        entry["exception"] = _exception(self, record) or None
        return _json({name: value for name, value in entry.items() if value is not None})


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == OURS or record.name.startswith(f"{OURS}.")


def _connection(record: logging.LogRecord) -> str | None:
    """The connection in whose handlers `record` was made, unless its fields name one."""
    if "connection" in _fields(record) or (_is_ours(record) and record.name != HANDLERS):
        return None
    return connection_id.get()


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    values = getattr(record, "fields", None)
    return values if isinstance(values, Mapping) else {}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - arguments that do not fit, or whose own code fails
        return f"{_shown(record.msg)} (its arguments cannot be shown: {type(error).__name__})"


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _json(entry: dict[str, Any]) -> str:
    try:
        return json.dumps(entry, default=_shown, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, circles, infinities
        plain = {str(name): value if isinstance(value, str | int) else _shown(value) for name, value in entry.items()}
        return json.dumps(plain)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else _shown(value)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text)


def _shown(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an object of the application, which may be half made
        return f"<{type(value).__name__} that cannot be shown>"


def _escaped(text: str) -> str:
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
