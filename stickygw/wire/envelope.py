"""What travels over the bridge: one published message with its origin and number.

An envelope is the msgpack array ``[version, origin, sequence, opcode, payload]``. The room is the channel's name. What
comes in is checked like a client's input: another node may be older, newer or hostile.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgpack

from stickygw.wire.prepared import BINARY, TEXT

VERSION = 1

ORIGIN_BYTES = 8
"""An origin is 8 random bytes per worker process, never its slot: a successor must not take its predecessor's messages
for its own echo."""

MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
"""Longer than any `max_message` that makes sense; a bound so that no peer decides our memory."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """`sequence` counts up from 1 for each origin and room."""

    origin: bytes
    sequence: int
    opcode: int
    payload: bytes


class EnvelopeError(ValueError):
    """Bytes on a bridge channel that are no envelope; counted and dropped."""


def encode(envelope: Envelope) -> bytes:
    """The bytes of an envelope."""
    data: bytes = msgpack.packb((VERSION, envelope.origin, envelope.sequence, envelope.opcode, envelope.payload))
    return data


def decode(data: bytes) -> Envelope:
    """The envelope in `data`. Raises `EnvelopeError` for anything else."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(f"{len(data)} bytes, at most {MAX_ENVELOPE_BYTES} are read")
    try:
        version, origin, sequence, opcode, payload = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise EnvelopeError(f"not an envelope: {error}") from error
    if (
        version != VERSION
        or type(origin) is not bytes
        or len(origin) != ORIGIN_BYTES
        or type(sequence) is not int
        or sequence < 1
        or opcode not in (TEXT, BINARY)
        or type(payload) is not bytes
    ):
        raise EnvelopeError("an envelope with a wrong version, origin, sequence, opcode or payload")
    if opcode == TEXT:
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            raise EnvelopeError("a text message that is not UTF-8") from error
    return Envelope(origin, sequence, opcode, payload)
