"""Each setting of the unit file, against what the code does. The file is parsed, not run: tests have no systemd."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from stickygw.config.catalogue import SETTINGS
from stickygw.config.settings import Settings
from stickygw.errors import ExitCode
from stickygw.primary.limits import connections_within, pending_within
from stickygw.primary.main import STORE_SECONDS

ROOT = Path(__file__).parents[3]


def parsed() -> dict[str, dict[str, str]]:
    """Section → name → value. No name is given twice."""
    sections: dict[str, dict[str, str]] = defaultdict(dict)
    section = ""
    for line in (ROOT / "deploy" / "stickygw.service").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals
            assert name not in sections[section], name
            sections[section][name] = value
    return sections


UNIT = parsed()
SERVICE = UNIT["Service"]


def test_its_command_line_is_sound(tmp_path: Path) -> None:
    program, verb, *arguments = shlex.split(SERVICE["ExecStart"])
    assert (Path(program).name, verb) == ("stickygw", "run")
    (tmp_path / "app.py").write_text("from stickygw import App\napp = App()\n")
    done = subprocess.run(
        [sys.executable, "-m", "stickygw.cli", "check", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.OK, done.stderr


def test_the_primary_tells_systemd_itself_how_it_is() -> None:
    assert (SERVICE["Type"], SERVICE["NotifyAccess"]) == ("notify-reload", "main")
    assert int(SERVICE["WatchdogSec"]) >= 10, "a busy machine is no hang"


def test_only_the_primary_is_signalled_and_a_dead_one_is_started_again() -> None:
    assert (SERVICE["KillMode"], SERVICE["Restart"]) == ("process", "always")
    assert UNIT["Unit"]["StartLimitIntervalSec"] == "0"
    never = {ExitCode.USAGE, ExitCode.SETTINGS}
    assert {ExitCode(int(code)) for code in SERVICE["RestartPreventExitStatus"].split()} == never


def test_a_process_that_the_kernel_kills_for_memory_takes_nobody_along() -> None:
    assert SERVICE["OOMPolicy"] == "continue"


def test_systemd_waits_longer_than_the_gateway_needs() -> None:
    settings = Settings()
    assert int(SERVICE["TimeoutStopSec"]) > settings.stop_timeout + STORE_SECONDS
    slots = 8
    assert int(SERVICE["TimeoutStartSec"]) > slots * (settings.start_timeout + settings.drain_timeout)


def test_there_are_descriptors_for_what_the_settings_allow() -> None:
    descriptors, settings = int(SERVICE["LimitNOFILE"]), Settings()
    assert connections_within(descriptors, settings.max_connections) == settings.max_connections
    assert pending_within(descriptors, settings.max_pending) == settings.max_pending


def test_directories_are_private_and_the_settings_name_them() -> None:
    assert (SERVICE["RuntimeDirectoryMode"], SERVICE["StateDirectoryMode"]) == ("0700", "0700")
    assert SERVICE["RuntimeDirectoryPreserve"] == "yes"
    given = dict(pair.split("=") for pair in SERVICE["Environment"].split())
    assert given == {
        SETTINGS["runtime_dir"].variable: f"%t/{SERVICE['RuntimeDirectory']}",
        SETTINGS["state_dir"].variable: f"%S/{SERVICE['StateDirectory']}",
    }


def test_it_is_nobody_special_and_sees_little() -> None:
    assert SERVICE["User"] not in ("", "root")
    assert SERVICE["CapabilityBoundingSet"] == ""
    assert SERVICE["ProtectSystem"] == "strict"
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictSUIDSGID"):
        assert SERVICE[name] == "yes"
    assert {"AF_UNIX", "AF_INET", "AF_INET6"} == set(SERVICE["RestrictAddressFamilies"].split())
    assert SERVICE["ProtectControlGroups"] == "yes", "read-only: the CPU quota is still read"
