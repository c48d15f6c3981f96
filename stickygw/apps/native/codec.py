"""What a message looks like to the application: as it came, JSON, or msgpack."""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any, Literal, Protocol

import msgpack

from stickygw.wire.prepared import BINARY, TEXT, PreparedMessage

CodecName = Literal["json", "msgpack"]


class DecodeError(ValueError):
    """A client's message that its codec cannot read; the connection is closed with 1007."""


class Codec(Protocol):
    """Turns messages into values and back."""

    def decode(self, message: str | bytes) -> Any:
        """Raises `DecodeError`."""

    def encode(self, value: Any) -> PreparedMessage:
        """Raises `TypeError` or `ValueError` for a value it cannot write: the application's mistake."""


class PlainCodec:
    """Messages as they are: str and bytes."""

    def decode(self, message: str | bytes) -> str | bytes:
        return message

    def encode(self, value: Any) -> PreparedMessage:
        if isinstance(value, str):
            return PreparedMessage(TEXT, value.encode())
        if isinstance(value, bytes | bytearray | memoryview):
            return PreparedMessage(BINARY, bytes(value))
        raise TypeError(f"a message is str or bytes, not {type(value).__name__}; App(codec='json') sends other values")


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # a half of a pair, escaped


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number too large")
    return number


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


class JsonCodec:
    """Text messages of JSON (RFC 8259).

    What is read can be written again: Python's own reader takes more (NaN, numbers that become infinite, halves of
    surrogate pairs, UTF-16), and an application that sent such a value on would fail for what its client did.
    """

    _encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    _decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)

    def decode(self, message: str | bytes) -> Any:
        try:
            text = message if isinstance(message, str) else message.decode()
            value = self._decoder.decode(text)
            if _SURROGATE.search(text):
                self._encoder.encode(value).encode()
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not JSON: {error}") from error
        return value

    def encode(self, value: Any) -> PreparedMessage:
        return PreparedMessage(TEXT, self._encoder.encode(value).encode())


class MsgpackCodec:
    """Binary messages of msgpack."""

    def decode(self, message: str | bytes) -> Any:
        if isinstance(message, str):
            raise DecodeError("a text message where msgpack was expected")
        try:
            return msgpack.unpackb(message)
        except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
            raise DecodeError(f"not msgpack: {error}") from error

    def encode(self, value: Any) -> PreparedMessage:
        return PreparedMessage(BINARY, msgpack.packb(value))


def codec_named(name: CodecName | None) -> Codec:
    """The codec that ``App(codec=…)`` names. Raises `ValueError` for another name."""
    if name is None:
        return PlainCodec()
    if name == "json":
        return JsonCodec()
    if name == "msgpack":
        return MsgpackCodec()
    raise ValueError(f"codec is None, 'json' or 'msgpack', not {name!r}")
