"""The command line as users meet it: a process, its two outputs and its exit code."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stickygw.config.checks import MAKE_SECRET
from stickygw.config.settings import Settings
from stickygw.errors import ExitCode

ROOT = Path(__file__).parents[3]
SECRET = "s3cr3t-" * 8
AN_APP = "from stickygw.apps.native.app import App\napp = App()\n@app.on_message\ndef said(conn, message): ...\n"


def stickygw(
    folder: Path, *arguments: str, paths: tuple[Path, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STICKYGW_")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*paths, ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "stickygw.cli", *arguments],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chat.py").write_text(AN_APP)
    return tmp_path


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose listener takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_check_tells_a_sound_gateway_in_a_few_lines(folder: Path) -> None:
    (folder / "stickygw.toml").write_text('bind = ["127.0.0.1:0", "[::1]:0"]')
    done = stickygw(folder, "check", "chat", "--workers", "1", "--key", "ip", "--key", "cookie", "--learn", "engineio")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert done.stdout.splitlines() == [
        f"settings  {folder}/stickygw.toml",
        "bind      127.0.0.1:0, [::1]:0",
        "workers   1",
        "store     embedded Valkey, for this machine only",
        "keys      engineio (learnt), ip, cookie",
        "app       chat, 1 handler",
    ]


def test_check_warns_of_more_workers_than_cpus_and_allows_them(folder: Path) -> None:
    done = stickygw(folder, "check", "chat", "--workers", "1024")
    assert done.returncode == ExitCode.OK
    assert "workers   1024\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("warning   workers: 1024, but affinity mask and CPU quota leave ")


def test_check_says_how_many_workers_auto_means(folder: Path) -> None:
    for workers in ("auto", "auto-1"):
        done = stickygw(folder, "check", "chat", "--workers", workers)
        assert re.search(rf"^workers   [1-9][0-9]* \({workers}\)$", done.stdout, re.MULTILINE)
        assert "warning" not in done.stdout


@pytest.mark.parametrize("command", ["run", "check"])
def test_watch_without_its_package_is_refused_before_anything_starts(folder: Path, command: str) -> None:
    assert stickygw(folder, "check", "chat", "--watch").returncode == ExitCode.OK
    (folder / "hidden").mkdir()
    (folder / "hidden" / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    done = stickygw(folder, command, "chat", "--watch", paths=(folder / "hidden",))
    assert (done.returncode, done.stdout) == (ExitCode.SETTINGS, "")
    assert done.stderr.startswith("error: watch: wanted (from flag --watch)")


def test_check_shows_the_redis_without_its_password_and_does_not_ask_it(folder: Path, silent_port: int) -> None:
    url = f"redis://user:hunter2@127.0.0.1:{silent_port}/0"
    done = stickygw(folder, "check", "chat.py", "--redis", url, STICKYGW_SECRET=SECRET)
    assert done.returncode == ExitCode.OK
    assert f"store     redis://user:***@127.0.0.1:{silent_port}/0\n" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_wrong_settings_end_with_their_code_and_a_line_for_each(folder: Path, command: str) -> None:
    done = stickygw(
        folder,
        *(command, "chat", "--bind", "80", "--key", "sid", "--set", "trusted_proxies=me", "--set", "secret=hunter2"),
        STICKYGW_PING_INTERVAL="7",
    )
    assert (done.returncode, done.stdout) == (ExitCode.SETTINGS, "")
    lines = done.stderr.splitlines()
    assert [line.split(" ")[:2] for line in lines] == [
        ["error:", "secret:"],
        ["error:", "bind:"],
        ["error:", "keys:"],
        ["error:", "trusted_proxies:"],
    ]
    sources = ["flag --set secret", "flag --bind", "flag --key", "flag --set trusted_proxies"]
    assert [source for source, line in zip(sources, lines, strict=True) if f"(from {source})" not in line] == []
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_redis_without_a_secret_is_refused_with_a_command_that_makes_one(folder: Path, command: str) -> None:
    done = stickygw(folder, command, "chat", "--redis", "redis://:hunter2@127.0.0.1:1")
    assert done.returncode == ExitCode.SETTINGS
    assert MAKE_SECRET in done.stderr
    assert "hunter2" not in done.stderr


def test_the_command_in_the_error_makes_a_secret_that_is_accepted(folder: Path) -> None:
    python = f'"{sys.executable}"'
    made = subprocess.run(
        MAKE_SECRET.replace("python3", python, 1), shell=True, capture_output=True, text=True, check=True
    )
    done = stickygw(folder, "check", "chat", "--redis", "redis://127.0.0.1:1", STICKYGW_SECRET=made.stdout.strip())
    assert done.returncode == ExitCode.OK


def test_check_of_an_app_that_raises_shows_its_traceback_and_one_last_line(folder: Path) -> None:
    (folder / "broken.py").write_text("1 / 0")
    done = stickygw(folder, "check", "broken.py")
    assert done.returncode == ExitCode.TARGET
    assert f'File "{folder}/broken.py", line 1' in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: importing {folder}/broken.py failed with ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize("target", ["nothing.py", "not-a-module", "chat:"])
def test_run_refuses_a_target_that_cannot_be_one(folder: Path, target: str) -> None:
    done = stickygw(folder, "run", target)
    assert done.returncode == ExitCode.TARGET
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), "Missing argument 'TARGET'"),
        (("run", "chat", "--bnd", "x"), "No such option"),
        (("walk",), "No such command"),
        (("check", "chat", "--set", "bind"), "--set wants NAME=VALUE"),
        (("check", "chat", "--bind", "a:1", "--set", "bind=b:1"), "bind is given twice"),
    ],
)
def test_a_wrong_command_line_ends_with_clicks_code(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    done = stickygw(folder, *arguments)
    assert done.returncode == ExitCode.USAGE
    assert words in done.stderr


def test_the_last_of_several_set_wins(folder: Path) -> None:
    done = stickygw(folder, "check", "chat", "--set", "bind=a:1", "--set", "bind=b:1,b:2")
    assert "bind      b:1, b:2\n" in done.stdout


def test_a_redis_that_refuses_is_named_without_its_password(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = stickygw(folder, "run", "chat", "--redis", f"redis://u:hunter2@127.0.0.1:{port}", STICKYGW_SECRET=SECRET)
    assert done.returncode == ExitCode.STORE
    assert f"cannot use the Redis at redis://u:***@127.0.0.1:{port} (from flag --redis): " in done.stderr
    assert "Connection refused" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_redis_that_never_answers_is_given_up(folder: Path, silent_port: int) -> None:
    done = stickygw(folder, "run", "chat", "--redis", f"redis://127.0.0.1:{silent_port}", STICKYGW_SECRET=SECRET)
    assert done.returncode == ExitCode.STORE
    assert len(done.stderr.splitlines()) == 1


def test_run_becomes_the_primary_and_hands_it_settings_that_no_argument_shows(folder: Path) -> None:
    fake = folder / "fake"
    (fake / "stickygw" / "primary").mkdir(parents=True)
    for package in ("", "primary"):
        for part in (ROOT / "stickygw" / package).iterdir():
            if part.name not in ("primary", "__main__.py", "__pycache__"):
                (fake / "stickygw" / package / part.name).symlink_to(part)
    (fake / "stickygw" / "primary" / "__main__.py").write_text(
        "import json, os, sys\n"
        "with os.fdopen(int(sys.argv[2])) as file:\n"
        "    print(json.dumps({'own': sys.argv[1:], **json.load(file)}))\n"
        "    print(os.readlink(f'/proc/self/fd/{file.fileno()}'), 'click' in sys.modules, file=sys.stderr)\n"
    )
    done = stickygw(folder, "run", "chat.py", "--workers", "2", paths=(fake,), STICKYGW_SECRET=SECRET)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["own"][::2] == ["--settings-fd", f"{folder}/chat.py:app"]
    assert told["arguments"] == ["run", "chat.py", "--workers", "2"]
    assert Settings.from_wire(told["settings"]) == Settings.from_wire({"workers": 2, "secret": [SECRET]})
    assert done.stderr.strip().endswith("(deleted) False")


def test_a_users_secrets_py_does_not_take_the_standard_librarys_place_in_the_primary(folder: Path) -> None:
    (folder / "secrets.py").write_text("raise SystemExit('the secrets.py of the current directory was imported')\n")
    # As the installed command starts: `python -m stickygw.cli` would have the current directory on its path itself.
    start = "import sys; sys.path.remove(''); from stickygw.cli.main import main; main()"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", start, "run", "chat", "--bind", bind],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitCode.BIND, done.stderr


def test_version_and_help_need_no_settings(folder: Path) -> None:
    (folder / "stickygw.toml").write_text("no toml")
    assert stickygw(folder, "--version").stdout.startswith("stickygw ")
    helped = stickygw(folder, "--help").stdout
    assert "check" in helped
    assert "run" in helped


def test_the_reference_page_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
