"""What processes write to standard error, seen from outside: in the form wanted, in one write each, and always ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

START = "import logging, logging.config\nfrom stickygw.observability.logs import *\n"
DISABLING = "logging.config.dictConfig({'version': 1})\n"


def written(script: str, **options: Any) -> str:
    """What a process with `script` writes to standard error."""
    done = subprocess.run([sys.executable, "-c", START + script], stderr=subprocess.PIPE, timeout=60, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def messages(script: str) -> list[str]:
    return [json.loads(line)["message"] for line in written(script).splitlines()]


def on_a_terminal(script: str) -> str:
    keyboard, screen = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", START + script], stderr=screen, timeout=60, check=True)
        return os.read(keyboard, 65536).decode()
    finally:
        os.close(keyboard)
        os.close(screen)


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", False), ("text", False), ("json", True)])
def test_a_terminal_shows_text_unless_json_is_wanted(log_format: str, is_json: bool) -> None:
    shown = on_a_terminal(f"set_up_logs('primary', 'info', {log_format!r})\nlogging.getLogger('stickygw.x').info('hi')")
    assert shown.startswith("{") is is_json
    assert "hi" in shown


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", True), ("text", False), ("json", True)])
def test_a_pipe_carries_json_unless_text_is_wanted(log_format: str, is_json: bool) -> None:
    line = written(f"set_up_logs('primary', 'info', {log_format!r})\nlogging.getLogger('stickygw.x').info('hi')")
    assert line.startswith("{") is is_json


def test_an_applications_loggers_come_out_too_from_info_on() -> None:
    script = (
        "set_up_logs('worker', 'debug', slot=1, generation=2)\n"
        "logging.basicConfig(level='DEBUG')\n"
        "for name in ('chat', 'stickygw.app', None):\n"
        "    logging.getLogger(name).debug('debug %s', name)\n"
        "    logging.getLogger(name).info('info %s', name)\n"
    )
    assert messages(script) == ["info chat", "debug stickygw.app", "info stickygw.app", "info None"]
    assert messages("set_up_logs('primary', 'error')\nlogging.getLogger('chat').warning('x')") == []


def test_access_lines_are_off_when_they_are_not_wanted() -> None:
    script = "set_up_logs('worker', 'info', access_log={})\nlogging.getLogger('stickygw.access').info('access')"
    assert messages(script.format(True)) == ["access"]
    assert messages(script.format(False)) == []


def test_an_applications_own_logging_config_does_not_silence_ours() -> None:
    script = "set_up_logs('worker', 'info')\nlog = logging.getLogger('stickygw.app')\n" + DISABLING
    assert messages(script + "log.info('lost')") == []
    assert messages(script + "restore_own_logs()\nlog.info('heard')") == ["heard"]


def test_each_record_is_one_write() -> None:
    script = (
        "import os\nwrites = []\nwrite = os.write\n"
        "os.write = lambda fd, data: writes.append(data) or write(fd, data)\n"
        "set_up_logs('worker', 'info', 'text')\n"
        "log = logging.getLogger('stickygw.app')\n"
        "log.info('x' * 100_000)\n"
        "try: 1 / 0\nexcept ZeroDivisionError: log.exception('raised')\n"
        "assert [data[-1:] for data in writes] == [b'\\n', b'\\n'], writes\n"
    )
    assert written(script).endswith("ZeroDivisionError: division by zero\n")


def test_a_standard_error_that_nobody_reads_or_that_is_closed_harms_nobody(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    script = START + "set_up_logs('worker', 'info')\nlogging.getLogger('stickygw.app').info('hi')"
    try:
        assert subprocess.run([sys.executable, "-c", script], stderr=write, timeout=60, check=False).returncode == 0
    finally:
        os.close(write)
    # Descriptor 2 may then be a file of the application's.
    mine = tmp_path / "mine"
    opened = f"import os\nassert os.open({str(mine)!r}, os.O_WRONLY | os.O_CREAT) == 2\n"
    closed = ["/bin/sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, opened + script]
    assert subprocess.run(closed, timeout=60, check=False).returncode == 0
    assert mine.read_bytes() == b""
