"""Codecs: what goes in comes out; what a client sends wrongly is a DecodeError, what the application does, its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.apps.native.codec import DecodeError, codec_named

STRINGS = st.lists(st.sampled_from([r"\ud83d", r"\ude00", r"\u00e4", r"\\\\", "u", "a"]), max_size=4).map(
    lambda parts: '"' + "".join(parts) + '"'
)
NUMBERS = st.sampled_from(["0", "-1.5", "1e999", "-1E+400", "9" * 400 + ".5", "1e308", "NaN", "-Infinity", "1" * 4301])
JSON_TEXTS = st.recursive(
    STRINGS | NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda texts: f"[{','.join(texts)}]")
        | st.tuples(STRINGS, inner).map(lambda pair: f"{{{pair[0]}:{pair[1]}}}")
    ),
    max_leaves=4,
)

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


NOT_JSON = ["", "{", "[" * 100_000, b"\xff", "{}".encode("utf-16"), "\ufeff{}"]
NOT_JSON += ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1.5E+400]", "1" * 5000, "9" * 400 + ".0"]
NOT_JSON += [r'"\ud800"', r'{"\uDFFF": 1}', r'"\ude00\ud83d"', b'"\xed\xa0\x80"']


@pytest.mark.parametrize("message", NOT_JSON)
def test_what_is_not_json_is_refused(message: str | bytes) -> None:
    with pytest.raises(DecodeError):
        codec_named("json").decode(message)


@given(JSON_TEXTS)
def test_json_that_is_read_can_be_written(text: str) -> None:
    codec = codec_named("json")
    try:
        value = codec.decode(text)
    except DecodeError:
        return
    assert codec.decode(codec.encode(value).payload) == value


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
