"""Where a body ends: the same for every cutting of its bytes, and where httptools sees it end."""

from __future__ import annotations

from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stickygw.wire.http_body import (
    MALFORMED,
    MAX_CHUNK_LINE_BYTES,
    MAX_TRAILER_BYTES,
    MAX_TRAILERS,
    BodyFraming,
    ChunkedBody,
    framing_of,
)

CHUNKED = [(b"transfer-encoding", b"chunked")]
NEXT = b"GET /next HTTP/1.1\r\n"


def walked(body: BodyFraming, pieces: list[bytes]) -> int | None:
    """How many bytes belong to the body; -1: malformed; None: it goes on."""
    taken = 0
    for piece in pieces:
        _, size = body.feed(piece)
        if size == MALFORMED:
            return MALFORMED
        taken += size
        if body.is_complete:
            return taken
        assert size == len(piece), "only what is behind the end is left"
    return None


def end_of(data: bytes) -> int | None:
    return walked(ChunkedBody(), [data])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({place % (len(data) + 1) for place in cuts}), len(data)]
    return [data[start:stop] for start, stop in pairwise(places) if stop > start]


@pytest.mark.parametrize(
    ("fields", "data", "end"),
    [
        ([], NEXT, 0),
        ([(b"content-length", b"0")], NEXT, 0),
        ([(b"content-length", b"3")], b"abcdef", 3),
        ([(b"content-length", b"3")], b"ab", None),
        ([(b"transfer-encoding", b"Chunked")], b"0\r\n\r\n" + NEXT, 5),
    ],
)
def test_the_head_says_how_the_body_is_framed(fields: list[tuple[bytes, bytes]], data: bytes, end: int | None) -> None:
    body = framing_of(fields)
    assert (0 if body.is_complete else walked(body, [data])) == end


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"1"), *CHUNKED],
        [*CHUNKED, *CHUNKED],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"1_0")],
        [(b"content-length", b"")],
    ],
)
def test_a_body_of_two_readings_has_no_framing(fields: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ValueError, match="two readings"):
        framing_of(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"a;name\r\n0123456789\r\n0\r\n\r\n",
        b'5 ; name = "a\\"b"; other=1\r\nhello\r\n00;x\r\n\r\n',
        b"0005\r\n\r\n\r\n\n\r\n0\r\nTrailer: value\r\nEmpty:\r\n\r\n",
    ],
)
def test_a_chunked_body_ends_behind_its_trailers(data: bytes) -> None:
    assert end_of(data + NEXT) == len(data)
    assert all(end_of(data[:size]) is None for size in range(len(data)))


def test_a_trailer_cannot_say_whose_request_it_is() -> None:
    body = ChunkedBody()
    body.feed(b"0\r\nAuthorization: me\r\nX-Forwarded-For: 1.2.3.4\r\nX-Checksum: 7\r\nHOST: other\r\n\r\n")
    assert body.trailers == [(b"x-checksum", b"7")]


@given(st.lists(st.integers(0)))
def test_a_body_is_what_is_in_its_chunks_however_they_are_cut(cuts: list[int]) -> None:
    data = b"5;x\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nFirst: \t1 \r\nSecond:\r\n\r\n"
    body = ChunkedBody()
    assert b"".join(body.feed(piece)[0] for piece in cut(data, cuts)) == b"hello world"
    assert body.is_complete
    assert body.trailers == [(b"first", b"1"), (b"second", b"")]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b" 5\r\n",
        b"5 \r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"5_0\r\n",
        b"5\n",
        b"5\rx",
        b"5;\n",
        b"5;a=\x00\r\n",
        b"1000000000000000\r\n",  # 16 digits
        b"2\r\nabc\r\n",
        b"2\r\nab\n",
        b"2\r\nabXY",
        b"0\r\n\n",
        b"0\r\nno colon\r\n",
        b"0\r\n folded: 1\r\n",
        b"0\r\nname : 1\r\n",
        b"0\r\nname: \x01\r\n",
        b"5;" + b"x" * MAX_CHUNK_LINE_BYTES,
        b"0\r\nname: " + b"x" * MAX_TRAILER_BYTES,
        b"0\r\n" + b"a:\r\n" * (MAX_TRAILERS + 1),
    ],
)
def test_what_is_no_chunk_is_malformed_in_one_piece_and_byte_by_byte(data: bytes) -> None:
    assert end_of(data) == MALFORMED
    assert walked(ChunkedBody(), [data[at : at + 1] for at in range(len(data))]) == MALFORMED


class Parsed:
    """httptools' own opinion on a chunked request."""

    def __init__(self) -> None:
        self.is_complete = False

    def on_message_complete(self) -> None:
        self.is_complete = True


def httptools_sees(data: bytes) -> str:
    parsed = Parsed()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    except httptools.HttpParserError:
        return "error"
    return "end" if parsed.is_complete else "more"


chunk = st.binary(max_size=40).flatmap(
    lambda data: st.sampled_from([b"", b";a", b";a=b", b' ; a="q"']).map(
        lambda extension: b"%x%b\r\n%b\r\n" % (len(data), extension, data) if data else b""
    )
)
trailers = st.sampled_from([b"", b"A: 1\r\n", b"A: 1\r\nB:\r\n"])
valid = st.builds(lambda chunks, fields: b"".join(chunks) + b"0\r\n" + fields + b"\r\n", st.lists(chunk), trailers)
soup = st.lists(st.sampled_from([b"0", b"1", b"a", b"\r", b"\n", b"\r\n", b";", b"=", b'"', b":", b" ", b"\t", b"Z"]))
noisy = st.one_of(valid, soup.map(b"".join), st.tuples(valid, soup.map(b"".join)).map(b"".join))


@given(noisy, st.lists(st.integers(0, 10_000)))
@example(b"1\r\na\r", [5])
def test_every_cutting_gives_the_same_answer(data: bytes, cuts: list[int]) -> None:
    assert walked(ChunkedBody(), cut(data, cuts)) == end_of(data)


@given(noisy)
def test_httptools_sees_the_same_end_or_refuses(data: bytes) -> None:
    end = end_of(data)
    if end is None:
        assert httptools_sees(data) != "end"
    elif end != MALFORMED:
        assert httptools_sees(data[:end]) in ("end", "error")
        assert httptools_sees(data[: end - 1]) in ("more", "error")
