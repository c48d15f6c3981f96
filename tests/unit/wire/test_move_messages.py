"""Every message of a move comes back as it went, and nothing else passes for one."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stickygw.types import MAX_SLOTS, HandOverId
from stickygw.wire.move import (
    ADDRESSES_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    MAX_STATE_BYTES,
    VERSION,
    Adopted,
    Carried,
    Copy,
    Finished,
    KeyRefused,
    Keys,
    KeyState,
    KeyStays,
    KeyTaken,
    Listening,
    MoveError,
    MoveMessage,
    Positions,
    Refused,
    Rooms,
    Settled,
    decode,
    encode,
)

LONGEST_ADDRESS = 200
"""Bytes, of a room's address: its name, and what goes before it."""

numbers = st.integers(0, 2**63 - 1)
ids = st.builds(HandOverId, numbers)
addresses = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
origins = st.binary(min_size=8, max_size=8)
messages: st.SearchStrategy[MoveMessage] = st.one_of(
    st.builds(Rooms, numbers, st.lists(addresses)),
    st.builds(Listening, numbers, st.lists(addresses)),
    st.builds(Copy, st.binary(max_size=60), st.binary(max_size=600)),
    st.builds(Settled, origins),
    st.builds(
        Positions,
        numbers,
        st.dictionaries(addresses, st.dictionaries(origins, numbers, max_size=3)),
        st.lists(origins),
        st.booleans(),
    ),
    st.builds(Carried, ids, st.binary(max_size=600)),
    st.builds(Adopted, ids),
    st.builds(Refused, ids, addresses),
    st.builds(Finished),
    st.builds(Keys, st.lists(st.binary(max_size=60)), st.booleans()),
    st.builds(KeyState, st.binary(max_size=60), st.binary(max_size=600)),
    st.builds(KeyStays, st.binary(max_size=60)),
    st.builds(KeyTaken, st.binary(max_size=60)),
    st.builds(KeyRefused, st.binary(max_size=60), addresses),
)


@given(messages)
def test_a_move_message_comes_back_as_it_went(message: MoveMessage) -> None:
    assert decode(encode(message)) == message


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | origins | st.text("a€", max_size=4),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(addresses | origins, some, max_size=3),
    max_leaves=12,
)
tagged = st.builds(lambda tag, values: [tag, *values], st.integers(-12, 12), st.lists(plain, max_size=4))


@given(
    st.one_of(
        st.binary(max_size=64), messages.map(encode).map(lambda data: data[:-1]), (plain | tagged).map(msgpack.packb)
    )
)
def test_garbage_is_a_move_error_or_a_message_that_is_written_as_it_was_read(data: bytes) -> None:
    try:
        message = decode(data)
    except MoveError:
        return
    assert isinstance(message, MoveMessage)
    assert msgpack.unpackb(encode(message), strict_map_key=False) == msgpack.unpackb(data, strict_map_key=False)


@given(messages, st.binary(min_size=1, max_size=4))
def test_what_comes_behind_a_message_in_its_datagram_is_refused(message: MoveMessage, more: bytes) -> None:
    with pytest.raises(MoveError):
        decode(encode(message) + more)


@pytest.mark.parametrize(
    "body",
    [
        *([], [99], [0, 1], [0, 1, [], "one more"], [3], [8, 1], ["0", 1, []], [None], [[0], 1, []], "text", None, 7),
        *([-1], [False, 1, []], b"\x08", {8: 1}),
        *(
            [0, "1", []],
            [0, True, []],
            [0, 1, "red"],
            [0, 1, [b"red"]],
            [2, "red", b""],
            [3, None],
            [6, 1.0],
            [7, 1, b""],
        ),
        *([4, 1, [], True], [4, 1, {b"red": {}}, True], [4, 1, {"red": {"X": 1}}, True], [4, 1, {"red": {b"X": 1}}, 1]),
    ],
    ids=repr,
)
def test_what_no_version_makes_is_a_move_error(body: object) -> None:
    with pytest.raises(MoveError):
        decode(msgpack.packb(body))


def test_a_move_message_too_long_for_a_datagram_is_refused_before_it_is_sent() -> None:
    with pytest.raises(MoveError, match=f"a Copy of .* at most {MAX_MESSAGE_BYTES} fit"):
        encode(Copy(b"room", bytes(MAX_MESSAGE_BYTES)))


def test_as_many_addresses_as_are_sent_together_fit_into_a_message() -> None:
    some = [f"{number:0{LONGEST_ADDRESS}}" for number in range(ADDRESSES_PER_MESSAGE)]
    position = {bytes([number]) * 8: 2**60 for number in range(8)}  # as if eight processes had published
    for message in (Rooms(VERSION, some), Positions(1, dict.fromkeys(some, position), [bytes(8)] * MAX_SLOTS, True)):
        assert len(encode(message)) <= MAX_MESSAGE_BYTES


def test_the_longest_state_that_travels_in_a_datagram_fits() -> None:
    assert len(encode(Carried(HandOverId(2**63), bytes(MAX_STATE_BYTES)))) <= MAX_MESSAGE_BYTES


def test_what_travels_is_not_shown_in_a_log() -> None:
    assert "secret" not in f"{Copy(b'room', b'secret')!r} {Carried(HandOverId(1), b'secret')!r}"
