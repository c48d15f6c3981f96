from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.config.redacted import redacted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:hunter2@localhost:6379/0", "redis://user:***@localhost:6379/0"),
        ("redis://:hunter2@localhost", "redis://:***@localhost"),
        ("redis://hunter2@localhost", "redis://***@localhost"),
        ("rediss://u:hun@ter/2#?@localhost", "rediss://u:***@localhost"),
        ("unix:///run/valkey.sock?db=1&password=hunter2&x=1", "unix:///run/valkey.sock?db=1&password=***&x=1"),
        ("redis://localhost?PASSWORD=hun@ter2", "redis://***"),
        ("redis://localhost?PASSWORD=hunter2", "redis://localhost?PASSWORD=***"),
        ("redis://u:hunter?password=2@localhost", "redis://***"),
        ("u:hunter2@localhost:6379", "u:***@localhost:6379"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(min_size=1, max_size=20), st.sampled_from(["redis://u:X@h:1/0", "redis://:X@h", "u:X@h"]))
def test_no_character_of_a_password_is_shown(password: str, template: str) -> None:
    assert redacted(template.replace("X", password)) == template.replace("X", "***")


@given(st.text(max_size=40))
def test_any_text_can_be_redacted_and_twice_is_the_same(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)
