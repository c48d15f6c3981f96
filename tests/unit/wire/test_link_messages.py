"""Every message of a link comes back as it went, and nothing else passes for one."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.wire.link import (
    Came,
    Configure,
    Declined,
    DeclineReason,
    Drain,
    Ended,
    Failed,
    Heartbeat,
    Moved,
    MoveIn,
    MoveOut,
    Offer,
    Ready,
    Stop,
    Taken,
)
from stickygw.wire.link_codec import MAX_MESSAGE_BYTES, LinkError, decode, encode

MESSAGES = [
    Configure(1, 3, 4, "0123abcd", "app:app", {"redis": {"url": "unix:///x"}, "keys": ["cookie"]}),
    Offer(7, "ab" * 16, 1_700_000_000, None, "::1", 4711, True, "cookie"),
    Offer(8, None, 0, None, "::1", 4711, True, "key_hash", b"ip\x00::1"),
    Offer(2**40, None, 0, 3, "", 0, False, "least_loaded"),
    MoveIn(3),
    MoveOut(2),
    Drain(30.0, 2.0),
    Stop(1.5, 0.25),
    Ready(),
    Failed("no module"),
    Heartbeat(0.01, 2, 3, 0, 5, 6, 0.5, 1 << 20, {"games": {1: "chess", b"raw": None}}),
    Taken([1, 2, 3]),
    Declined(9, DeclineReason.NO_DESCRIPTOR),
    Ended([]),
    Came([2**40, 1]),
    Moved(12_000, 1, 0),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_went(message) -> None:
    assert decode(encode(message)) == message


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=4) | st.text("a€"),
    lambda some: st.lists(some, max_size=12) | st.dictionaries(st.integers(0, 9) | st.text("a"), some, max_size=3),
    max_leaves=20,
)
tagged = st.builds(lambda tag, values: [tag, *values], st.integers(-30, 30), st.lists(plain, max_size=10))


@given(st.one_of(st.binary(max_size=64), (plain | tagged).map(msgpack.packb)))
def test_garbage_is_a_link_error_or_a_message(data: bytes) -> None:
    try:
        message = decode(data)
    except LinkError:
        return
    assert msgpack.unpackb(data, strict_map_key=False)[0] >= 0
    assert type(message).__module__ == "stickygw.wire.link"


NO_REASON = [*msgpack.unpackb(encode(Declined(9, DeclineReason.NO_DESCRIPTOR)))[:2], "no such reason"]


@pytest.mark.parametrize(
    "body", [[], [99], [1, 2], [2, 0, "extra"], "text", None, NO_REASON, {}, [-1, 9, ""], [True], b"\0\1"]
)
def test_what_encode_does_not_make_is_refused(body) -> None:
    with pytest.raises(LinkError):
        decode(msgpack.packb(body))


def test_a_message_too_long_for_a_datagram_is_refused_before_it_is_sent() -> None:
    with pytest.raises(LinkError, match="at most"):
        encode(Failed("x" * MAX_MESSAGE_BYTES))
