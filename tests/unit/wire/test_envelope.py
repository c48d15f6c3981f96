"""An envelope comes back as it went; whatever else comes over the bridge is refused, never an accident."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.wire.envelope import Envelope, EnvelopeError, decode, encode

ORIGIN = bytes(range(8))


def test_the_bytes_of_an_envelope_are_these() -> None:
    assert encode(Envelope(ORIGIN, 1, 1, b"hi")).hex(" ") == "95 01 c4 08 00 01 02 03 04 05 06 07 01 01 c4 02 68 69"


@given(st.integers(1, 2**63), st.text())
def test_an_envelope_comes_back_as_it_went(sequence: int, text: str) -> None:
    envelope = Envelope(ORIGIN, sequence, 1, text.encode())
    assert decode(encode(envelope)) == envelope


@pytest.mark.parametrize(
    "fields",
    [
        (2, ORIGIN, 1, 1, b""),
        (1, b"short", 1, 1, b""),
        (1, "not bytes", 1, 1, b""),
        (1, ORIGIN, 0, 1, b""),
        (1, ORIGIN, True, 1, b""),
        (1, ORIGIN, 1, 8, b""),
        (1, ORIGIN, 1, 1, "text"),
        (1, ORIGIN, 1, 1, b"\xff"),
        (1, ORIGIN, 1, 1),
        (1, ORIGIN, 1, 1, b"", 0),
    ],
)
def test_a_wrong_field_is_refused(fields: tuple) -> None:
    with pytest.raises(EnvelopeError):
        decode(msgpack.packb(fields))


@given(st.binary(max_size=64))
def test_garbage_is_refused(data: bytes) -> None:
    try:
        decode(data)
    except EnvelopeError:
        pass
