"""What a close frame may carry: made, and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.wire.closing import close_payload, read_close

SENDABLE = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]


@given(st.sampled_from(SENDABLE), st.text(max_size=123).filter(lambda text: len(text.encode()) <= 123))
def test_what_is_made_is_read_back(code: int, reason: str) -> None:
    assert read_close(close_payload(code, reason)) == (code, reason)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_536])
def test_a_code_that_no_frame_may_carry_is_neither_made_nor_read(code: int) -> None:
    with pytest.raises(ValueError, match="no close code"):
        close_payload(code, "")
    if 0 <= code < 65_536:
        with pytest.raises(ValueError, match="no close code"):
            read_close(code.to_bytes(2, "big"))


def test_a_reason_of_over_123_bytes_is_neither_made_nor_read() -> None:
    assert len(close_payload(4000, "é" * 61 + "x")) == 125
    with pytest.raises(ValueError, match="at most 123 bytes"):
        close_payload(4000, "é" * 62)
    with pytest.raises(ValueError, match="at most 123 bytes"):
        read_close((4000).to_bytes(2, "big") + b"r" * 124)


def test_a_reason_is_text() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        close_payload(4000, "\ud800")
    with pytest.raises(ValueError, match="utf-8"):
        read_close((4000).to_bytes(2, "big") + b"\xff")


@pytest.mark.parametrize("payload", [b"", b"\x03"])
def test_without_a_code_it_is_none(payload: bytes) -> None:
    with pytest.raises(ValueError, match="two bytes"):
        read_close(payload)


@given(st.binary(max_size=130))
def test_whatever_is_read_could_have_been_made(payload: bytes) -> None:
    try:
        code, reason = read_close(payload)
    except ValueError:
        return
    assert close_payload(code, reason) == payload
