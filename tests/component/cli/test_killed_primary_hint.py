"""A command that finds no gateway says so when workers of a killed one still serve."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stickygw.cli.gateway import find_gateway
from stickygw.config.places import ROLL
from stickygw.errors import NoGatewayError
from stickygw.primary.roll import RollFile


def test_who_asks_a_killed_gateway_is_told_of_its_workers(short_dir: Path) -> None:
    RollFile(short_dir / ROLL).write([os.getpid()], [])  # a process that lives
    with pytest.raises(NoGatewayError, match=r"1 worker of a killed primary still at work.*--no-adopt"):
        find_gateway(short_dir)


def test_who_asks_where_nothing_is_left_is_not(short_dir: Path) -> None:
    RollFile(short_dir / ROLL).write([], [])
    with pytest.raises(NoGatewayError) as told:
        find_gateway(short_dir)
    assert "killed" not in str(told.value)
