from __future__ import annotations

from stickygw.config.catalogue import SECTIONS, SETTINGS, allowed
from stickygw.config.settings import Settings


def test_every_setting_is_in_the_catalogue_with_a_meaning() -> None:
    wire = Settings().to_wire()
    assert set(SETTINGS) == {
        *(name for name in wire if name not in SECTIONS),
        *(f"{section}.{name}" for section in SECTIONS for name in wire[section]),
    }
    assert [name for name, setting in SETTINGS.items() if not setting.meaning.endswith(".")] == []


def test_no_two_settings_share_a_variable() -> None:
    assert len({setting.variable for setting in SETTINGS.values()}) == len(SETTINGS)


def test_the_secret_settings_are_known_as_such() -> None:
    assert {name for name, setting in SETTINGS.items() if setting.is_secret} == {"secret", "redis.url"}


def test_what_is_allowed_is_told_in_words_for_every_setting() -> None:
    assert all(allowed(name) for name in SETTINGS)
    assert allowed("slot_queue") == "a whole number at least 1"
    assert allowed("compression") == "true or false"
