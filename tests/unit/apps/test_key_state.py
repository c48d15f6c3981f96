"""A key as text, and what hooks return for it as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.native import key_state
from stickygw.apps.native.key_state import NoKeyState, pack_key_state, text_of, unpack_key_state
from stickygw.errors import StateValueError
from stickygw.wire.move import MAX_MESSAGE_BYTES, Keys, decode, encode, pages_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


def test_a_key_is_the_text_behind_its_kind_one_character_for_each_byte() -> None:
    assert text_of(b"path:/match/{id}\0m1") == "m1"
    assert text_of(b"header:x-doc\0\xc3\xa9\0") == "\xc3\xa9\0"


@given(st.lists(PLAIN))
def test_what_hooks_return_is_what_hooks_get(values: list[object]) -> None:
    assert unpack_key_state(pack_key_state(values)) == values


@given(st.binary(max_size=50))
def test_other_bytes_are_no_state(data: bytes) -> None:
    with pytest.raises(NoKeyState):
        unpack_key_state(data)


def test_another_version_is_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_state, "VERSION", 999)
    data = pack_key_state([1])
    monkeypatch.undo()
    with pytest.raises(NoKeyState, match="version 999"):
        unpack_key_state(data)


def test_all_hooks_share_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_state, "MAX_KEY_STATE_BYTES", 100)
    pack_key_state(["x" * 40, "x" * 40])
    with pytest.raises(StateValueError, match="at most 100"):
        pack_key_state(["x" * 60, "x" * 60])
    with pytest.raises(StateValueError, match="what on_key_out returned"):
        pack_key_state([object()])


@given(st.lists(st.binary(min_size=1, max_size=900), max_size=500))
def test_a_list_of_keys_is_told_in_pages_of_which_the_last_completes_it(keys: list[bytes]) -> None:
    pages = pages_of(keys)
    assert [key for page in pages for key in page.keys] == keys
    assert [page.is_complete for page in pages] == [False] * (len(pages) - 1) + [True]
    for page in pages:
        assert decode(encode(page)) == page


def test_the_longest_keys_fit_their_pages() -> None:
    keys = [bytes([number % 256]) * 700 for number in range(1000)]
    pages = pages_of(keys)
    assert max(len(encode(page)) for page in pages) <= MAX_MESSAGE_BYTES
    assert pages[-1] == Keys(keys[-len(pages[-1].keys) :], True)
