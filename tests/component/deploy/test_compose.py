"""The compose file says what the command line takes. It is parsed here, not run: tests have no container engine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
GATEWAY = COMPOSE["services"]["gateway"]


def test_the_gateways_command_line_is_sound() -> None:
    verb, *arguments = GATEWAY["command"]
    assert verb == "run"
    environment = dict.fromkeys(GATEWAY["environment"], "s" * 48)
    result = subprocess.run(
        [sys.executable, "-m", "stickygw.cli", "check", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "redis://valkey:6379/0" in result.stdout


def test_without_a_secret_compose_and_check_both_refuse() -> None:
    assert re.fullmatch(r"\$\{STICKYGW_SECRET:\?.+\}", GATEWAY["environment"]["STICKYGW_SECRET"])
    environment = {name: value for name, value in os.environ.items() if name != "STICKYGW_SECRET"}
    result = subprocess.run(
        [sys.executable, "-m", "stickygw.cli", "check", *GATEWAY["command"][1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3
    assert "secret" in result.stderr


def test_every_service_has_a_health_check_and_the_gateway_waits_for_the_store() -> None:
    assert all("healthcheck" in service for service in COMPOSE["services"].values())
    assert GATEWAY["depends_on"]["valkey"]["condition"] == "service_healthy"
    assert GATEWAY["init"] is True


def test_the_health_check_is_the_one_of_the_image() -> None:
    assert repr(GATEWAY["healthcheck"]["test"][-1]) == repr(re.search(r'CMD \["python", "-c", "(.+)"\]', DOCKERFILE)[1])


def test_the_image_runs_as_nobody_special_and_copies_what_exists() -> None:
    assert re.search(r"^USER stickygw$", DOCKERFILE, re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
