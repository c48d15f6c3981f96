"""What travels over the bridge: one published message with its origin and number, signed.

An envelope is 16 bytes of signature, then the msgpack array ``[2, origin, sequence, opcode, payload, to, group]``
(`Envelope` says what they mean). The signature is the beginning of HMAC-SHA256 over the channel, a zero byte and that
array, with a key derived from the gateway's secret; without signing it is 16 zero bytes. What comes in is checked like
a client's input: another node may be older, newer or hostile.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from stickygw.wire.closing import read_close
from stickygw.wire.prepared import BINARY, TEXT

VERSION = 2

SIGNATURE_BYTES = 16

ORIGIN_BYTES = 8
"""An origin is 8 random bytes per worker process, never its slot: a successor must not take its predecessor's messages
for its own echo."""

GROUP_BYTES = 8

MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
"""Longer than any `max_message` that makes sense; a bound so that no peer decides our memory."""

MAX_TO_BYTES = 256

HEAD = 0x0
"""An envelope with nothing but its sender's last number on the channel, so that a loss at the end is noticed."""

OVERTAKEN = b"\x01"
"""The payload of a `HEAD` that others may have overtaken since the loss: who heard those first knows the number
already, and is to be told all the same."""

CLOSE = 0x8
"""An order to close; its payload is a close frame's (RFC 6455 §5.5.1): the code in two bytes, then the reason."""

_OPCODES = frozenset({HEAD, TEXT, BINARY, CLOSE})
_UNSIGNED = bytes(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Envelope:
    """`origin` names the sender, `sequence` counts up from 1 for each origin and channel.

    `opcode` is TEXT, BINARY, `CLOSE` or `HEAD`. `to` says which of the receivers are meant: ``session:ID`` or
    ``connection:ID``; "": all. `group`: 8 bytes that are the same in the copies of one message in several rooms, of
    which a member gets one; b"": there is one.
    """

    origin: bytes
    sequence: int
    opcode: int
    payload: bytes
    to: str = ""
    group: bytes = b""


class EnvelopeError(ValueError):
    """Bytes on a bridge channel that are no envelope; counted and dropped."""


class ForeignEnvelope(EnvelopeError):
    """An envelope that none of our secrets has signed: of a gateway with another one, or forged."""


class EnvelopeKeys:
    """Makes and checks the bytes of envelopes. The newest of `secrets` signs, all verify; none: nothing is signed, and
    every envelope is taken."""

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        self._keys = [hmac.digest(secret, b"stickygw bridge v2", "sha256") for secret in secrets]

    def encode(self, channel: bytes, envelope: Envelope) -> bytes:
        """The bytes of an envelope on `channel`."""
        body: bytes = msgpack.packb(
            (
                VERSION,
                envelope.origin,
                envelope.sequence,
                envelope.opcode,
                envelope.payload,
                envelope.to,
                envelope.group,
            )
        )
        return (_signature(self._keys[0], channel, body) if self._keys else _UNSIGNED) + body

    def decode(self, channel: bytes, data: bytes) -> Envelope:
        """The envelope in `data`. Raises `EnvelopeError` for anything else, `ForeignEnvelope` for another's."""
        if len(data) > MAX_ENVELOPE_BYTES:
            raise EnvelopeError(f"{len(data)} bytes, at most {MAX_ENVELOPE_BYTES} are read")
        signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        if self._keys and not any(hmac.compare_digest(_signature(key, channel, body), signature) for key in self._keys):
            raise ForeignEnvelope("an envelope that none of our secrets has signed")
        try:
            version, origin, sequence, opcode, payload, to, group = msgpack.unpackb(body)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise EnvelopeError(f"not an envelope: {error}") from error
        envelope = Envelope(origin, sequence, opcode, payload, to, group)
        if version != VERSION or not _is_sound(envelope):
            raise EnvelopeError("an envelope of another version, or with a part that is none")
        return envelope


def _signature(key: bytes, channel: bytes, body: bytes) -> bytes:
    return hmac.digest(key, channel + b"\x00" + body, "sha256")[:SIGNATURE_BYTES]


def _is_sound(envelope: Envelope) -> bool:
    return (
        type(envelope.origin) is bytes
        and len(envelope.origin) == ORIGIN_BYTES
        and type(envelope.sequence) is int
        and envelope.sequence >= 1
        and type(envelope.opcode) is int
        and envelope.opcode in _OPCODES
        and type(envelope.payload) is bytes
        and type(envelope.to) is str
        and len(envelope.to.encode(errors="replace")) <= MAX_TO_BYTES
        and type(envelope.group) is bytes
        and len(envelope.group) in (0, GROUP_BYTES)
        and (envelope.opcode != TEXT or _is_text(envelope.payload))
        and (envelope.opcode != CLOSE or _is_close(envelope.payload))
    )


def _is_close(payload: bytes) -> bool:
    try:
        read_close(payload)
    except ValueError:
        return False
    return True


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
