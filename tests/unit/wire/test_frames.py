"""Frame sizes agree with the `websockets` library; prepared messages are what it would have sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from stickygw.wire.frames import HEADER_INCOMPLETE, HEADER_INVALID, frame_size
from stickygw.wire.prepared import PreparedMessage

LIMIT = 1 << 20


def client_frame(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


@given(st.integers(0, 70_000), st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]), st.booleans())
def test_the_size_is_that_of_the_whole_frame(length: int, opcode: Opcode, fin: bool) -> None:
    frame = client_frame(opcode, b"x" * length, fin=fin)
    assert frame_size(b"junk" + frame + b"more", 4, LIMIT) == len(frame)


@given(st.integers(0, 70_000))
def test_a_header_that_is_still_coming_is_incomplete(length: int) -> None:
    frame = client_frame(Opcode.BINARY, b"x" * length)
    header = 2 if length < 126 else 4 if length < 65_536 else 10
    sizes = [frame_size(frame[:end], 0, LIMIT) for end in range(header + 1)]
    assert sizes == [HEADER_INCOMPLETE] * header + [len(frame)]


@pytest.mark.parametrize("start", [b"\x81\x05", b"\x83\x85", b"\x8b\x80", b"\x82\xfe\xff\xff"])
def test_a_header_that_will_be_refused_is_invalid(start: bytes) -> None:
    assert frame_size(start, 0, 1000) == HEADER_INVALID


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.just("x" * 70_000)))
def test_a_prepared_message_is_what_the_library_would_send(message: str | bytes) -> None:
    opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    payload = message.encode() if isinstance(message, str) else message
    assert PreparedMessage.of(message).plain == Frame(opcode, payload).serialize(mask=False)


@given(st.text(max_size=2000))
def test_a_compressed_message_is_read_by_the_library(text: str) -> None:
    client = Protocol(CLIENT)
    client.extensions = [PerMessageDeflate(True, True, 12, 15)]
    client.receive_data(PreparedMessage.of(text).compressed)
    (event,) = client.events_received()
    assert isinstance(event, Frame)
    assert bytes(event.data).decode() == text


def test_a_message_is_framed_once() -> None:
    message = PreparedMessage.of("x" * 100)
    assert message.plain is message.plain
    assert message.compressed is message.compressed
