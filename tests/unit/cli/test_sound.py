"""The grammar of routing settings, checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from stickygw.cli.options import Options
from stickygw.cli.sound import sound_settings
from stickygw.errors import SettingsError


def settings(tmp_path: Path, *learn: str):
    return sound_settings(Options({"learn": learn}, {"learn": "--learn"}, None), directory=tmp_path).settings


def test_learnt_ids_may_be_given_several_at_once(tmp_path: Path) -> None:
    assert tuple(settings(tmp_path, "engineio", "header:mcp-session-id").learn) == ("engineio", "header:mcp-session-id")


def test_what_cannot_be_learnt_is_named_with_its_origin_and_what_can(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, "engineio", "query:sid")
    assert "learn: 'query:sid' cannot be learnt: give engineio, header:NAME or cookie:NAME (from flag --learn)" in str(
        caught.value
    )
