"""The control socket's messages come back as they went, however the stream is cut, and nothing else passes for one."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.errors import ExitCode
from stickygw.wire.control import (
    LENGTH_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TEXT,
    ControlError,
    Decoder,
    Failure,
    Progress,
    Request,
    Result,
    decode_reply,
    decode_request,
    encode,
)

REQUESTS = [
    Request("status", {}),
    Request("scale", {"slots": 4}),
    Request("tell", {"name": "jobs", "payload": {1: [None, b"\xff", {"deep": 1.5}]}, "to": "all"}),
]
REPLIES = [
    Progress("slot 2: ready"),
    Result({"answers": {0: {"payload": 1}, 1: {"error": "no handler"}}}),
    Failure(ExitCode.TARGET, "No module named 'chat'"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@pytest.mark.parametrize(
    ("messages", "decode"), [(REQUESTS, decode_request), (REPLIES, decode_reply)], ids=["requests", "replies"]
)
@given(sizes=st.lists(st.integers(1, 40), max_size=12))
def test_messages_come_back_as_they_went_however_the_stream_is_cut(messages, decode, sizes) -> None:
    decoder = Decoder(decode)
    got = []
    for piece in cut(b"".join(map(encode, messages)), sizes):
        decoder.feed(piece)
        while (message := decoder.next_message()) is not None:
            got.append(message)
    assert got == messages
    assert not decoder.has_begun


@given(do=st.text(), arguments=st.dictionaries(st.text(), JSON, max_size=4))
def test_any_arguments_of_json_come_back_as_they_went(do: str, arguments) -> None:
    body = encode(Request(do, arguments))[LENGTH_BYTES:]
    assert decode_request(body) == Request(do, arguments)


@given(pieces=st.lists(st.binary(max_size=64), max_size=4), is_framed=st.booleans())
def test_any_bytes_are_messages_or_a_control_error(pieces: list[bytes], is_framed: bool) -> None:
    for decode in (decode_request, decode_reply):
        decoder = Decoder(decode)
        try:
            for piece in pieces:
                decoder.feed(framed(piece) if is_framed else piece)
                while (message := decoder.next_message()) is not None:
                    assert isinstance(message, Request | Progress | Result | Failure)
        except ControlError:
            pass


NOT_REQUESTS = [
    None,
    [],
    "status",
    {},
    {"v": 1},
    {"v": 1, "do": "status"},
    {"v": 1, "do": 7, "with": {}},
    {"v": 1, "do": "status", "with": []},
    {"v": 1, "do": "scale", "with": {3: 4}},
    {"v": "1", "do": "status", "with": {}},
    {"do": "status", "with": {}},
]
NOT_REPLIES = [
    {},
    [],
    {"progress": 1},
    {"result": "done"},
    {"error": "no"},
    {"error": {"code": "COMMAND"}},
    {"error": {"code": "NO_SUCH_CODE", "message": ""}},
]


@pytest.mark.parametrize(
    ("decode", "value"),
    [*((decode_request, value) for value in NOT_REQUESTS), *((decode_reply, value) for value in NOT_REPLIES)],
)
def test_what_encode_does_not_make_is_refused(decode, value) -> None:
    with pytest.raises(ControlError, match="is expected"):
        decode(msgpack.packb(value))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91" * 3000, b"\x81\x90\x01", b"\xd7\xff" + b"\xff" * 8, b"\xdd\x7f\xff\xff\xff"]
)
def test_what_is_no_msgpack_is_refused(body: bytes) -> None:
    with pytest.raises(ControlError, match="no msgpack"):
        decode_request(body)


def test_another_version_is_named_beside_ours() -> None:
    with pytest.raises(ControlError, match="version 2 of the control protocol; this gateway speaks 1"):
        decode_request(msgpack.packb({"v": 2, "do": "status", "how": "new"}))


def test_a_message_that_is_too_long_is_refused_by_its_length_alone() -> None:
    decoder = Decoder(decode_request)
    decoder.feed((MAX_MESSAGE_BYTES + 1).to_bytes(LENGTH_BYTES, "big"))
    with pytest.raises(ControlError, match=f"at most {MAX_MESSAGE_BYTES}"):
        decoder.next_message()


@pytest.mark.parametrize("value", ["x" * MAX_MESSAGE_BYTES, {1, 2}, 2**64, "\udcff"])
def test_what_has_no_bytes_in_the_protocol_is_refused_before_it_is_sent(value) -> None:
    with pytest.raises(ControlError):
        encode(Result({"value": value}))


def test_texts_for_people_always_fit() -> None:
    text = "\udcff" * (MAX_TEXT + 1)
    assert decode_reply(encode(Progress(text))[LENGTH_BYTES:]) == Progress("\\udcff" * MAX_TEXT)
    assert decode_reply(encode(Failure(ExitCode.COMMAND, text))[LENGTH_BYTES:]).message == "\\udcff" * MAX_TEXT


def test_a_request_does_not_show_its_arguments() -> None:
    assert "hunter2" not in repr(Request("why", {"cookie": "hunter2"}))
