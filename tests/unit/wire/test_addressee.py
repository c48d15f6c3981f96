"""Whom an envelope names: a session or a connection, whose id is checked."""

from __future__ import annotations

from typing import Any

import pytest

from stickygw.wire.addressee import addressee
from stickygw.wire.envelope import MAX_TO_BYTES, TEXT, Envelope, EnvelopeKeys


def test_the_longest_addressee_fits_into_an_envelope() -> None:
    keys, longest = EnvelopeKeys(), addressee("session", "é" * 124)
    assert len(longest.encode()) == MAX_TO_BYTES
    envelope = Envelope(b"origin__", 1, TEXT, b"hi", longest)
    assert keys.decode(b"c", keys.encode(b"c", envelope)) == envelope
    assert addressee("connection", "c0") == "connection:c0"


@pytest.mark.parametrize("id", ["", "s" * 249, "é" * 125, "\ud800", None, b"5e55", 7])
def test_what_is_no_id_is_refused(id: Any) -> None:
    with pytest.raises(ValueError, match="a session's id "):
        addressee("session", id)
