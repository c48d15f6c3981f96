"""An upgrade that would look for the workers elsewhere is refused, and the setting is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stickygw.config.settings import Settings
from stickygw.errors import CommandError
from stickygw.primary.whereabouts import known_name, places_of, refuse_if_moved

WAS = Settings(bind=("127.0.0.1:8000", "unix:/run/web"), state_dir=Path("/var/lib/sg"))


def shown(settings: Settings) -> bytes:
    return json.dumps(places_of(settings)).encode()


def test_the_same_places_and_other_settings_are_no_hindrance() -> None:
    refuse_if_moved(WAS, shown(WAS.model_copy(update={"move_grace": 1.0})))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"bind": ("127.0.0.1:9000",)},
            "bind is 127.0.0.1:9000 now, and was 127.0.0.1:8000, unix:/run/web: an upgrade keeps it",
        ),
        ({"runtime_dir": Path("/run/sg")}, "runtime_dir is /run/sg now, and was not given: "),
        ({"state_dir": None}, "state_dir is not given now, and was /var/lib/sg: "),
    ],
)
def test_another_place_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandError, match="to change it, restart the gateway") as refused:
        refuse_if_moved(WAS, shown(WAS.model_copy(update=change)))
    assert words in str(refused.value)


@pytest.mark.parametrize("said", [b"", b"null", b"12", b'{"bind": [', b"\xff"])
def test_code_that_does_not_say_its_places_is_refused(said: bytes) -> None:
    with pytest.raises(CommandError, match="does not say where"):
        refuse_if_moved(WAS, said)


@pytest.mark.parametrize(
    ("bind", "runtime_dir", "is_known"),
    [
        ("127.0.0.1:8000", None, True),
        ("127.0.0.1:0", None, False),
        ("127.0.0.1:0", Path("/run/sg"), True),
        ("unix:/run/web", None, True),
    ],
)
def test_the_directories_are_known_unless_they_are_named_after_a_port_of_the_system_s_choice(
    bind: str, runtime_dir: Path | None, is_known: bool
) -> None:
    assert (known_name(Settings(bind=(bind,), runtime_dir=runtime_dir)) is not None) is is_known
