"""The gate's verdict on every head of the corpus, however its bytes come and whatever comes behind them."""

from __future__ import annotations

from collections import Counter

import pytest
from corpus import CASES, HEADER_TIMEOUT, REFUSED, UNFINISHED, VALID, Case

from stickygw.connections.handshake import headers_of, negotiate
from stickygw.routing.request_head import MAX_HEAD_BYTES, NEED_MORE, Head, Refusal, RefusalReason, examine

BEHIND = (
    b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x81\x85\0\0\0\0hello",
    b"\r\n\r\n",
    b"\n",
    b" folded: x\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    bytes(range(256)),
)
"""What may come behind a head: a second request, a frame, line ends, a fold, a body, anything."""


def named(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def test_the_corpus_is_whole() -> None:
    """A checkout that turns line ends, or leaves files out, would test something else."""
    assert len(CASES) >= 380
    (unix,) = (case.data for case in CASES if case.name == "400-bad_request_line-bare_lf")
    assert b"\r" not in unix
    assert all(case.data.endswith(b"\r\n\r\n") for case in VALID)


def test_every_reason_of_the_gate_has_a_head() -> None:
    reasons = Counter(case.reason for case in CASES)
    # A PROXY header is read from trusted peers only, and not by the gate.
    expected = {str(reason) for reason in RefusalReason} - {RefusalReason.BAD_PROXY_HEADER}
    assert set(reasons) - {"", HEADER_TIMEOUT} == expected


@named(VALID)
def test_a_valid_head_is_let_through(case: Case) -> None:
    verdict = examine(case.data)

    assert isinstance(verdict, Head)
    assert verdict.size == len(case.data)
    assert verdict.is_websocket == case.is_websocket
    assert case.data.count(b"\r\n") == len(verdict.fields) + 2


@named(REFUSED)
def test_an_invalid_head_is_refused_with_its_status_and_reason(case: Case) -> None:
    verdict = examine(case.data)

    assert isinstance(verdict, Refusal)
    assert (verdict.status, verdict.reason) == (case.status, case.reason)


@named(UNFINISHED)
def test_an_unfinished_head_is_waited_for(case: Case) -> None:
    assert examine(case.data) is NEED_MORE


@named(CASES)
def test_every_segmentation_gives_the_same_verdict(case: Case) -> None:
    """The gate sees prefixes, and keeps nothing between two looks: so all prefixes are all segmentations."""
    whole = examine(case.data)
    # No verdict depends on more: this is where the gate stops reading.
    verdicts = [examine(case.data[:size]) for size in range(min(len(case.data), MAX_HEAD_BYTES + 8) + 1)]
    first = next((size for size, verdict in enumerate(verdicts) if verdict is not NEED_MORE), len(verdicts))

    assert all(verdict == whole for verdict in verdicts[first:])
    if case.is_valid:
        assert first == len(case.data)


@named([case for case in CASES if not case.is_unfinished])
def test_what_comes_behind_changes_nothing(case: Case) -> None:
    whole = examine(case.data)

    assert [examine(case.data + more) for more in BEHIND] == [whole] * len(BEHIND)


@named([case for case in VALID if case.is_websocket])
def test_no_offer_of_a_client_upsets_the_negotiation(case: Case) -> None:
    """Extensions and subprotocols are the only part of a head that only the worker reads."""
    head = examine(case.data)
    assert isinstance(head, Head)

    for compression in (False, True):
        protocol, response = negotiate(
            head, headers_of(head), subprotocols=(), compression=compression, max_message=1 << 20
        )
        # Another origin is refused before the negotiation.
        assert response.status_code == (400 if case.status == 400 else 101)
        assert compression or not protocol.extensions
