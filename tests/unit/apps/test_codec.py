"""Codecs: what goes in comes out; what a client sends wrongly is a DecodeError, what the application does, its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.native.codec import DecodeError, codec_named

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner)
)


@given(VALUES)
def test_json_comes_back(value) -> None:
    codec = codec_named("json")
    assert codec.decode(codec.encode(value).payload.decode()) == value


@given(VALUES)
def test_msgpack_comes_back(value) -> None:
    codec = codec_named("msgpack")
    assert codec.decode(codec.encode(value).payload) == value


@pytest.mark.parametrize("message", ["", "{", "[" * 100_000, b"\xff"])
def test_what_is_not_json_is_refused(message: str | bytes) -> None:
    with pytest.raises(DecodeError):
        codec_named("json").decode(message)


@pytest.mark.parametrize("message", ["text", b"", b"\xc1", b"\x91" * 5000])
def test_what_is_not_msgpack_is_refused(message: str | bytes) -> None:
    with pytest.raises(DecodeError):
        codec_named("msgpack").decode(message)


def test_plain_messages_are_text_and_bytes_only() -> None:
    with pytest.raises(TypeError, match="codec='json'"):
        codec_named(None).encode({"a": 1})


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="'xml'"):
        codec_named("xml")  # type: ignore[arg-type]
