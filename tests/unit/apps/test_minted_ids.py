"""Ids that say which gateway has minted them."""

from __future__ import annotations

from string import printable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.native.minted import mint, minter_of
from stickygw.types import GatewayId

GATEWAY = GatewayId("0123abcd")


def test_an_id_names_its_gateway_and_is_never_the_same() -> None:
    ids = {mint(GATEWAY) for _ in range(1000)}
    assert len(ids) == 1000
    assert {minter_of(id) for id in ids} == {GATEWAY}
    assert {len(id) for id in ids} == {31}  # 8, a dot, and 128 bits by six
    assert all(quote(id, safe="") == id for id in ids)


@pytest.mark.parametrize(
    "id",
    [
        "",
        "0123abcd",
        "0123abcd.",
        "0123abcd." + "a" * 21,
        "0123abcd." + "a" * 23,
        "0123abcd." + "a" * 22 + "\n",
        "0123ABCD." + "a" * 22,
        "0123abc." + "a" * 22,
        "0123abcd-" + "a" * 22,
        "0123abcd." + "a" * 21 + "/",
        "0123abcd." + "a" * 21 + "ä",
        "٠١٢٣٠١٢٣." + "a" * 22,
        " 0123abcd." + "a" * 22,
    ],
)
def test_what_no_gateway_has_minted_is_nobody_s(id: str) -> None:
    assert minter_of(id) is None


@given(st.text(printable, max_size=40))
def test_any_text_may_be_asked_about(text: str) -> None:
    minter = minter_of(text)
    assert minter is None or text.startswith(f"{minter}.")
