"""Every message of a link comes back as it went, and nothing else passes for one."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.wire.link import (
    MAX_MESSAGE_BYTES,
    Configure,
    Declined,
    DeclineReason,
    Ended,
    Failed,
    Heartbeat,
    LinkError,
    Offer,
    Ready,
    Stop,
    Taken,
    decode,
    encode,
)

MESSAGES = [
    Configure(1, 3, 4, "0123abcd", "app:app", {"redis": {"url": "unix:///x"}, "keys": ["cookie"]}),
    Offer(7, "ab" * 16, 1_700_000_000, None, "::1", 4711, True, "cookie"),
    Offer(2**40, None, 0, 3, "", 0, False, "least_loaded"),
    Stop(1.5, 0.25),
    Ready(),
    Failed("no module"),
    Heartbeat(0.01, 2, 3, 0, 5, 6, 0.5, 1 << 20, {"games": {1: "chess", b"raw": None}}),
    Taken([1, 2, 3]),
    Declined(9, DeclineReason.NO_DESCRIPTOR),
    Ended([]),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_went(message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=64))
def test_garbage_is_a_link_error_or_a_message(data: bytes) -> None:
    try:
        decode(data)
    except LinkError:
        pass


@pytest.mark.parametrize("body", [[], [99], [1, 2], [3, "extra"], "text", None, [7, 1, "no such reason"], {}])
def test_what_encode_does_not_make_is_refused(body) -> None:
    with pytest.raises(LinkError):
        decode(msgpack.packb(body))


def test_a_message_too_long_for_a_datagram_is_refused_before_it_is_sent() -> None:
    with pytest.raises(LinkError, match="at most"):
        encode(Failed("x" * MAX_MESSAGE_BYTES))
