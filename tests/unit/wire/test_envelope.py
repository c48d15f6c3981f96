"""An envelope comes back as it went; whatever else comes over the bridge is refused, never an accident."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.wire import envelope as envelopes
from stickygw.wire.closing import close_payload
from stickygw.wire.envelope import (
    CLOSE,
    GROUP_BYTES,
    HEAD,
    ORIGIN_BYTES,
    SIGNATURE_BYTES,
    Envelope,
    EnvelopeError,
    EnvelopeKeys,
    ForeignEnvelope,
)
from stickygw.wire.prepared import BINARY, TEXT

ORIGIN = bytes(range(ORIGIN_BYTES))
GROUP = b"G" * GROUP_BYTES
CHANNEL = b"sgw:room:red"
HELLO = Envelope(ORIGIN, 1, TEXT, b"hi")

KEYS = EnvelopeKeys([b"secret"])
UNSIGNED = EnvelopeKeys()

BODY_OF_HELLO = "97 02 c4 08 00 01 02 03 04 05 06 07 01 01 c4 02 68 69 a0 c4 00"


def unsigned(*fields: object) -> bytes:
    """What comes over a bridge without signing, made of any fields."""
    return bytes(SIGNATURE_BYTES) + bytes(msgpack.packb(fields))


# Bytes


def test_the_bytes_of_a_signed_envelope_are_these() -> None:
    signature = "dd 04 16 bc a5 61 42 bc ff 80 28 27 43 1f a7 f3 "
    assert KEYS.encode(CHANNEL, HELLO).hex(" ") == signature + BODY_OF_HELLO


def test_the_bytes_of_an_unsigned_envelope_are_these() -> None:
    assert UNSIGNED.encode(CHANNEL, HELLO).hex(" ") == "00 " * SIGNATURE_BYTES + BODY_OF_HELLO


def test_the_bytes_of_an_envelope_with_all_its_parts_are_these() -> None:
    envelope = Envelope(ORIGIN, 70_000, CLOSE, b"\x03\xe8bye", "session:s1", GROUP)
    assert UNSIGNED.encode(CHANNEL, envelope)[SIGNATURE_BYTES:].hex(" ") == (
        "97 02 c4 08 00 01 02 03 04 05 06 07 ce 00 01 11 70 08 c4 05 03 e8 62 79 65 "
        "aa 73 65 73 73 69 6f 6e 3a 73 31 c4 08 47 47 47 47 47 47 47 47"
    )


ENVELOPES = (
    st.builds(
        Envelope,
        origin=st.binary(min_size=ORIGIN_BYTES, max_size=ORIGIN_BYTES),
        sequence=st.integers(1, 2**63),
        opcode=st.just(TEXT),
        payload=st.text().map(str.encode),
        to=st.text(st.characters(codec="utf-8"), max_size=envelopes.MAX_TO_BYTES // 4),
        group=st.just(b"") | st.binary(min_size=GROUP_BYTES, max_size=GROUP_BYTES),
    )
    | st.builds(
        Envelope,
        origin=st.just(ORIGIN),
        sequence=st.integers(1, 2**63),
        opcode=st.sampled_from([HEAD, BINARY]),
        payload=st.binary(),
    )
    | st.builds(
        Envelope,
        origin=st.just(ORIGIN),
        sequence=st.integers(1, 2**63),
        opcode=st.just(CLOSE),
        payload=st.builds(close_payload, st.integers(3000, 4999), st.text(st.characters(codec="utf-8"), max_size=30)),
    )
)


@pytest.mark.parametrize("keys", [KEYS, UNSIGNED])
@given(envelope=ENVELOPES, channel=st.binary())
def test_an_envelope_comes_back_as_it_went(keys: EnvelopeKeys, envelope: Envelope, channel: bytes) -> None:
    assert keys.decode(channel, keys.encode(channel, envelope)) == envelope


# What is refused


@pytest.mark.parametrize(
    "fields",
    [
        (1, ORIGIN, 1, TEXT, b"", "", b""),
        (3, ORIGIN, 1, TEXT, b"", "", b""),
        (2, b"short", 1, TEXT, b"", "", b""),
        (2, "8 chars!", 1, TEXT, b"", "", b""),
        (2, ORIGIN, 0, TEXT, b"", "", b""),
        (2, ORIGIN, True, TEXT, b"", "", b""),
        (2, ORIGIN, 1.0, TEXT, b"", "", b""),
        (2, ORIGIN, 1, 9, b"", "", b""),
        (2, ORIGIN, 1, True, b"", "", b""),
        (2, ORIGIN, 1, [1], b"", "", b""),
        (2, ORIGIN, 1, TEXT, "text", "", b""),
        (2, ORIGIN, 1, TEXT, b"\xff", "", b""),
        (2, ORIGIN, 1, CLOSE, b"\x03", "", b""),
        (2, ORIGIN, 1, CLOSE, (1005).to_bytes(2) + b"no code that is sent", "", b""),
        (2, ORIGIN, 1, CLOSE, (1000).to_bytes(2) + b"\xff", "", b""),
        (2, ORIGIN, 1, CLOSE, (1000).to_bytes(2) + b"x" * 124, "", b""),
        (2, ORIGIN, 1, TEXT, b"", b"", b""),
        (2, ORIGIN, 1, TEXT, b"", None, b""),
        (2, ORIGIN, 1, TEXT, b"", "x" * 257, b""),
        (2, ORIGIN, 1, TEXT, b"", "", b"seven b"),
        (2, ORIGIN, 1, TEXT, b"", "", ""),
        (2, ORIGIN, 1, TEXT, b"", ""),
        (2, ORIGIN, 1, TEXT, b"", "", b"", 0),
        (1, ORIGIN, 1, TEXT, b""),
    ],
)
def test_a_wrong_field_is_refused(fields: tuple[object, ...]) -> None:
    with pytest.raises(EnvelopeError):
        UNSIGNED.decode(CHANNEL, unsigned(*fields))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x97", b"\x07", b"\xc0", b"\x97" * 2000, b"\xd9\x02\xff\xff", b"\x80"]
)
def test_what_is_no_array_is_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        UNSIGNED.decode(CHANNEL, bytes(SIGNATURE_BYTES) + body)


def test_what_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = KEYS.encode(CHANNEL, HELLO)
    monkeypatch.setattr(envelopes, "MAX_ENVELOPE_BYTES", len(data) - 1)
    with pytest.raises(EnvelopeError, match="at most"):
        KEYS.decode(CHANNEL, data)


FIELDS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(data=st.binary(max_size=80) | st.lists(FIELDS, min_size=6, max_size=8).map(lambda fields: unsigned(*fields)))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    try:
        envelope = UNSIGNED.decode(CHANNEL, data)
    except EnvelopeError:
        return
    assert UNSIGNED.decode(CHANNEL, UNSIGNED.encode(CHANNEL, envelope)) == envelope


@given(place=st.integers(0, 4), field=FIELDS)
def test_any_field_is_sound_or_refused(place: int, field: Any) -> None:
    fields: list[Any] = [2, ORIGIN, 1, TEXT, b"hi", "", b""]
    fields[place + 2] = field
    try:
        envelope = UNSIGNED.decode(CHANNEL, unsigned(*fields))
    except EnvelopeError:
        return
    assert isinstance(envelope.sequence, int)
    assert envelope.sequence >= 1
    assert isinstance(envelope.payload, bytes)
    assert isinstance(envelope.to, str)
    assert len(envelope.group) in (0, GROUP_BYTES)


# Signatures


def test_another_secret_is_foreign() -> None:
    with pytest.raises(ForeignEnvelope):
        EnvelopeKeys([b"another"]).decode(CHANNEL, KEYS.encode(CHANNEL, HELLO))


def test_an_unsigned_envelope_is_foreign_where_it_has_to_be_signed() -> None:
    with pytest.raises(ForeignEnvelope):
        KEYS.decode(CHANNEL, UNSIGNED.encode(CHANNEL, HELLO))


def test_without_signing_a_signed_envelope_is_taken() -> None:
    assert UNSIGNED.decode(CHANNEL, KEYS.encode(CHANNEL, HELLO)) == HELLO


def test_an_envelope_of_another_channel_is_foreign() -> None:
    with pytest.raises(ForeignEnvelope):
        KEYS.decode(b"sgw:room:blue", KEYS.encode(CHANNEL, HELLO))


def test_while_secrets_rotate_the_newest_signs_and_all_verify() -> None:
    old, both, new = EnvelopeKeys([b"old"]), EnvelopeKeys([b"new", b"old"]), EnvelopeKeys([b"new"])
    assert both.decode(CHANNEL, old.encode(CHANNEL, HELLO)) == HELLO
    assert new.decode(CHANNEL, both.encode(CHANNEL, HELLO)) == HELLO
    with pytest.raises(ForeignEnvelope):
        old.decode(CHANNEL, both.encode(CHANNEL, HELLO))


@given(place=st.integers(0, SIGNATURE_BYTES + 20), bit=st.integers(0, 7))
def test_a_changed_bit_is_foreign(place: int, bit: int) -> None:
    data = bytearray(KEYS.encode(CHANNEL, HELLO))
    data[place] ^= 1 << bit
    with pytest.raises(ForeignEnvelope):
        KEYS.decode(CHANNEL, bytes(data))


@given(st.binary(max_size=80))
def test_any_bytes_are_foreign_where_envelopes_are_signed(data: bytes) -> None:
    with pytest.raises(ForeignEnvelope):
        KEYS.decode(CHANNEL, data)
