"""Answers are whole, and nothing in a field can split them."""

import pytest

from stickygw.wire.http_answer import answer


def test_an_answer_is_whole_and_closes() -> None:
    head, _, body = answer(404, b"gone\n", fields=[("Retry-After", "1")]).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found"
    assert b"Content-Length: 5" in head
    assert b"Connection: close" in head
    assert b"Retry-After: 1" in head
    assert body == b"gone\n"


def test_head_gets_the_length_without_the_body() -> None:
    whole = answer(200, b"12345", with_body=False)
    assert b"Content-Length: 5" in whole
    assert whole.endswith(b"\r\n\r\n")


def test_a_line_break_in_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        answer(401, b"", fields=[("WWW-Authenticate", "x\r\nSet-Cookie: a=b")])
