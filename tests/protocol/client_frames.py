"""A client's frames, good and bad, as bytes. The mask is four zeros wherever nobody can tell."""

from __future__ import annotations

import zlib

from websockets.frames import Frame, Opcode


def raw_frame(first: int, payload: bytes = b"", *, length: int | None = None, width: int | None = None) -> bytes:
    """A masked frame with `first` as its first byte, `length` as its announced size, in 0, 2 or 8 `width` bytes."""
    length = len(payload) if length is None else length
    if width is None:
        width = 0 if length < 126 else 2 if length < 65536 else 8
    second = {0: length, 2: 126, 8: 127}[width]
    extended = length.to_bytes(width, "big") if width else b""
    return bytes([first, 0x80 | second]) + extended + bytes(4) + payload


def fragment(opcode: Opcode, payload: bytes = b"", *, fin: bool = False) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def close_frame(payload: bytes) -> bytes:
    return raw_frame(0x88, payload)


def deflated(payload: bytes) -> bytes:
    """`payload` as one compressed text frame."""
    compressor = zlib.compressobj(wbits=-15)
    return raw_frame(0xC1, (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4])
