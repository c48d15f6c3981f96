"""A record becomes one line, for people or for machines, whatever is in it; a traceback keeps its lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.observability.access import log_access
from stickygw.observability.context import connection_id
from stickygw.observability.formats import JsonFormat, Speaker, TextFormat, fields
from stickygw.types import ConnectionId

WORKER = Speaker("worker", slot=2, generation=3)
ID = ConnectionId("00ff00ff00ff00ff")


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("half made")

    __repr__ = __str__


def record(message: Any, *arguments: Any, name: str = "stickygw.app", **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, "file.py", 1, message, arguments, None)
    made.__dict__.update(more)
    return made


def text(made: logging.LogRecord, speaker: Speaker = WORKER) -> str:
    return TextFormat(speaker).format(made)


def entry(made: logging.LogRecord, speaker: Speaker = WORKER) -> dict[str, Any]:
    line = JsonFormat(speaker).format(made)
    assert line.isprintable(), "one line of ASCII"
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found, dict)
    return found


class BrokenError(Broken, Exception):
    pass


def failed(error: Exception) -> dict[str, Any]:
    return {"exc_info": (type(error), error, error.__traceback__)}


@pytest.fixture
def _in_a_handler() -> Iterator[None]:
    token = connection_id.set(ID)
    yield
    connection_id.reset(token)


def test_text_says_when_how_grave_who_and_what() -> None:
    made = record("moved %d", 7, created=0.0, msecs=7.9, process=4711)
    assert text(made)[8:] == ".007 INFO    worker 2 g3 [4711]: moved 7"
    assert text(made, Speaker("primary")).endswith(" primary [4711]: moved 7")


def test_text_names_the_logger_of_an_application() -> None:
    assert text(record("hello", name="chat.rooms")).endswith("]: chat.rooms: hello")
    assert text(record("hello", name="stickygwish")).endswith("]: stickygwish: hello")


def test_json_has_the_record_and_its_process_as_keys() -> None:
    made = record("moved %d", 7, created=1_700_000_000.0625, process=4711)
    assert entry(made) == {
        "time": "2023-11-14T22:13:20.062Z",
        "level": "info",
        "logger": "stickygw.app",
        "message": "moved 7",
        "process": "worker",
        "slot": 2,
        "pid": 4711,
        "generation": 3,
    }
    assert not {"slot", "generation"} & entry(made, Speaker("primary")).keys()


@pytest.mark.usefixtures("_in_a_handler")
@pytest.mark.parametrize(
    ("name", "is_inside"), [("chat", True), ("stickygw.app", True), ("stickygw.bridge", False), ("stickygw", False)]
)
def test_what_handlers_log_carries_their_connection_and_what_is_shared_does_not(name: str, is_inside: bool) -> None:
    assert entry(record("hello", name=name)).get("connection") == (ID if is_inside else None)
    assert text(record("hello", name=name)).endswith(f"hello connection={ID}" if is_inside else "hello")


@pytest.mark.usefixtures("_in_a_handler")
def test_a_connection_that_the_record_names_is_the_one_that_counts() -> None:
    made = record("hello", **fields(connection="another"))
    assert entry(made)["connection"] == "another"
    assert text(made).endswith("hello connection=another")


def test_fields_are_keys_but_do_not_replace_what_the_record_is() -> None:
    made = record("moved", **fields(slot=1, seconds=0.5, reason=None, level="none", message="no"))
    found = entry(made)
    assert (found["slot"], found["seconds"], found["level"], found["message"]) == (1, 0.5, "info", "moved")
    assert "reason" not in found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/ws/a?b", "/ws/a?b"),
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b', r'"a\"b"'),
        ("a=b", '"a=b"'),
        ("a\nb\x7f", r'"a\nb\u007f"'),
        ("ö", r'"\u00f6"'),
        (0.5, "0.5"),
        (Broken(), '"<Broken that cannot be shown>"'),
    ],
)
def test_a_value_that_could_be_read_in_two_ways_is_quoted_in_text(value: object, shown: str) -> None:
    assert text(record("x", **fields(key=value))).endswith(f" x key={shown}")


@pytest.mark.parametrize("bad", ["\n", "\r", "\x1b", "\0", "\x7f", "\x9b", "\u2028", "\u202e", "\ud800"])
def test_nothing_in_a_message_breaks_its_line_or_commands_the_terminal(bad: str) -> None:
    line = text(record("said %s", f"a{bad}12:00:00 ERROR forged", name=f"app{bad}"))
    assert bad not in line
    assert bad.encode("unicode_escape").decode() + "12:00:00 ERROR forged" in line


def test_text_in_any_script_stays_as_it_is() -> None:
    assert text(record("grüße می‌خواهم 👩‍💻\\n")).endswith("grüße می‌خواهم 👩‍💻\\n")


def test_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    try:
        raise ValueError("a\x1b[31m\nb")
    except ValueError as error:
        made = record("raised", **failed(error))
    first, *below = text(made).split("\n")
    assert first.endswith(": raised")
    # Indented, so that no line of a message looks like a record.
    assert (below[0], below[-2:]) == ("  Traceback (most recent call last):", ["  ValueError: a\\x1b[31m", "  b"])
    assert entry(made)["exception"].splitlines()[0] == "Traceback (most recent call last):"


def test_no_exception_in_hand_is_no_traceback() -> None:
    made = record("x", exc_info=(None, None, None))
    assert "\n" not in text(made)
    assert "exception" not in entry(made)


circle: list[Any] = []
circle.append(circle)


@pytest.mark.parametrize(
    "made",
    [
        record("%d and %s", "no number", 1),
        record("%s", Broken()),
        record(Broken()),
        record("x", **fields(key=Broken())),
        record("x", **fields(key=object())),
        record("x", **fields(key=float("nan"))),
        record("x", **fields(key=circle)),
        record("x", **fields(key={(1, 2): 3})),
        record("x", fields={1: 2}),
        record("x", fields=5),
        record("x", **failed(BrokenError())),
    ],
)
def test_what_cannot_be_shown_is_a_line_all_the_same(made: logging.LogRecord) -> None:
    assert text(made)
    assert entry(made)["process"] == "worker"


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.none()))
def test_any_text_is_one_line(message: str, values: dict[str, Any]) -> None:
    assert len(text(record("%s", message, fields=values)).splitlines()) == 1
    assert entry(record("%s", message, fields=values))["message"] == message


def test_an_access_line_bounds_its_path_and_leaves_out_what_there_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stickygw.access")
    log_access(client="", reason="cookie", kind="http", status=404, path="/" + "x" * 10_000)
    [made] = caplog.records
    path = "/" + "x" * 255 + "..."
    assert text(made).endswith(f": access client=unix reason=cookie kind=http path={path} status=404")
