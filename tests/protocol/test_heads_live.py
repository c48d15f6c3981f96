"""Every head of the corpus, and any bytes, sent to a running gateway: an answer or a close, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from corpus import CASES, UNFINISHED, VALID, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from support.client import Client, gather_bounded
from support.gateway import Gateway
from support.logs import assert_quiet
from support.raw import Answer, Raw, exchange, frame, head, parsed, upgrade
from websockets.frames import Close

from stickygw.routing.request_head import Head, examine

MIRROR = f"{Path(__file__).parent / 'apps' / 'mirror.py'}:app"

TIMEOUT = 2.0
"""The gateway's header_timeout in seconds; a tenth of a client's patience."""

AT_ONCE = 20

GROUPS = sorted({case.group for case in CASES if not case.is_unfinished})

SECOND = b"GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway(MIRROR, "--set", f"header_timeout={TIMEOUT:g}", workers=2) as gateway:
        yield gateway
        assert_quiet(gateway)


async def is_well(gateway: Gateway) -> None:
    """A good client is served at once."""
    started = time.monotonic()
    async with Client(gateway.ws_url) as client:
        await client.receive()
        assert await client.ask(good="client") == {"good": "client"}
    assert time.monotonic() - started < 5


def whole(data: bytes) -> Answer:
    """The one answer that `data` is, to its last byte and not one more."""
    answer = parsed(data)
    assert answer.status < 500
    assert answer.get("Connection") == "close"
    assert answer.get("Content-Length") is not None
    return answer


async def becomes(gateway: Gateway, case: Case, *pieces: bytes) -> None:
    """Send `pieces`, which begin with the head of `case`, and see that its verdict comes true."""
    async with Raw(gateway.port) as raw:
        for piece in pieces:
            await raw.send(piece)
            await asyncio.sleep(0)
        if case.group == "websocket":
            await mirrored(raw, case)
            return
        data = await raw.receive_all()  # a reset would raise
    if case.status == 0:
        assert data == b""
        return
    answer = whole(data)
    if case.group == "plain":
        assert answer.status < 500
    else:
        assert answer.status == case.status
        assert answer.cookie is None
    has_body = case.group != "plain" or not case.data.startswith(b"HEAD ")
    assert len(answer.body) == (int(answer.get("Content-Length") or 0) if has_body else 0)


async def mirrored(raw: Raw, case: Case) -> None:
    """It gets 101, and the application sees the very head that the gate let through."""
    seen = examine(case.data)
    assert isinstance(seen, Head)
    await raw.opened()
    first = await raw.next_frame()
    assert first is not None
    facts: dict[str, Any] = json.loads(bytes(first.data))
    assert (facts["path"], facts["query"]) == (seen.path, seen.query)
    fields = [(name.encode(), value.encode("latin-1")) for name, value in facts["fields"]]
    assert sorted(fields) == sorted(seen.fields)
    for name in dict(fields):
        assert [value for other, value in fields if other == name] == seen.get_all(name)


async def each(gateway: Gateway, cases: list[tuple[Case, tuple[bytes, ...]]]) -> None:
    """All `cases`, each sent in its pieces; then a good client. The failures are told by their names."""
    failures: list[str] = []

    async def one(case: Case, pieces: tuple[bytes, ...]) -> None:
        try:
            await becomes(gateway, case, *pieces)
        except Exception as error:  # noqa: BLE001 - told below, with its name
            failures.append(f"{case.name} in {[len(piece) for piece in pieces]}: {error!r}")

    await gather_bounded(AT_ONCE, *(one(case, pieces) for case, pieces in cases))
    await is_well(gateway)
    assert failures == []


def of_group(group: str) -> list[Case]:
    return [case for case in CASES if case.group == group]


def cut(data: bytes, *places: int) -> tuple[bytes, ...]:
    """`data` in pieces that end at `places`, none of them empty."""
    ends = sorted({0, len(data), *(place for place in places if 0 < place < len(data))})
    return tuple(data[start:end] for start, end in pairwise(ends))


@pytest.mark.parametrize("group", GROUPS)
async def test_every_head_becomes_what_its_name_says(gateway: Gateway, group: str) -> None:
    await each(gateway, [(case, (case.data,)) for case in of_group(group)])


@pytest.mark.parametrize("group", GROUPS)
async def test_a_head_in_pieces_becomes_the_same(gateway: Gateway, group: str) -> None:
    cases = of_group(group)
    cuts = [(case, cut(case.data, place)) for case in cases for place in (1, len(case.data) // 2, len(case.data) - 1)]
    cuts += [(case, cut(case.data, 3, 20, len(case.data) - 3)) for case in cases]
    await each(gateway, cuts)


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "websocket"])
async def test_a_head_with_a_second_request_behind_it_becomes_the_same(gateway: Gateway, group: str) -> None:
    """Whoever smuggles one gets no answer to it."""
    await each(gateway, [(case, (case.data + SECOND,)) for case in of_group(group)])


async def test_a_second_request_behind_a_handshake_is_a_broken_frame(gateway: Gateway) -> None:
    async def closed(case: Case) -> int:
        async with Raw(gateway.port) as raw:
            await raw.send(case.data + SECOND)
            await raw.opened()
            last = await raw.next_frame()
            assert await raw.next_frame() is None
        assert last is not None
        return Close.parse(bytes(last.data)).code

    cases = of_group("websocket")
    assert await gather_bounded(AT_ONCE, *(closed(case) for case in cases)) == [1002] * len(cases)
    await is_well(gateway)


async def test_a_body_that_nobody_reads_gets_one_answer_and_no_reset(gateway: Gateway) -> None:
    """CVE-2020-36048: engine.io kept such bodies. CVE-2025-43859: h11 read on in chunks with odd ends."""
    chunk = b"5\r\nhelloXX0\r\n\r\n" + SECOND
    posts = [case for case in of_group("plain") if case.data.startswith(b"POST ")]
    assert len(posts) > 7
    await each(gateway, [(case, (case.data, *[chunk * 500] * 10)) for case in posts])


async def test_a_frame_in_the_segment_of_its_handshake_is_not_lost(gateway: Gateway) -> None:
    async def echoed(case: Case) -> bytes:
        async with Raw(gateway.port) as raw:
            await raw.send(case.data + frame({"early": case.name}))
            await mirrored(raw, case)
            answer = await raw.next_frame()
        assert answer is not None
        return bytes(answer.data)

    cases = of_group("websocket")
    answers = await gather_bounded(AT_ONCE, *(echoed(case) for case in cases))
    assert [json.loads(answer) for answer in answers] == [{"early": case.name} for case in cases]


# A head that is not complete


async def test_an_unfinished_head_is_408_at_the_timeout(gateway: Gateway) -> None:
    started = time.monotonic()
    await each(gateway, [(case, (case.data,)) for case in UNFINISHED])
    assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT * 5


async def test_an_unfinished_head_and_a_fin_are_400_at_once(gateway: Gateway) -> None:
    async def status(case: Case) -> int:
        async with Raw(gateway.port) as raw:
            await raw.send(case.data)
            raw.finish()
            return whole(await raw.receive_all()).status

    started = time.monotonic()
    assert await gather_bounded(AT_ONCE, *(status(case) for case in UNFINISHED)) == [400] * len(UNFINISHED)
    assert time.monotonic() - started < TIMEOUT


@pytest.mark.parametrize("size", [1, 40, None], ids=["after a byte", "half way", "after the whole head"])
async def test_a_client_that_resets_harms_nobody(gateway: Gateway, size: int | None) -> None:
    """CVE-2022-41940: a reset at the wrong moment of an upgrade ended engine.io's process."""
    for _ in range(50):
        raw = Raw(gateway.port)
        await raw.__aenter__()
        await raw.send(upgrade()[:size])
        raw.reset()
    await is_well(gateway)


async def test_urgent_data_is_no_part_of_a_head(gateway: Gateway) -> None:
    """A byte out of band hides what comes behind it from whoever only looks: it must not make him look for ever."""

    def answered() -> bytes:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT * 5) as sock:
            sock.sendall(upgrade()[:30])
            sock.send(b"!", socket.MSG_OOB)
            sock.sendall(upgrade()[30:])
            data = b""
            while piece := sock.recv(65536):
                data += piece
            return data

    answer = await asyncio.to_thread(answered)
    assert whole(answer).status == 408
    await is_well(gateway)


# Any bytes

ENDS = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\xff", b"\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0"]
FIELDS = [b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: websocket\r\n"]
FIELDS += [b"Connection: Upgrade\r\n", b"X:\r\n" * 101]
OTHERS = [b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"a" * 20_000, SECOND, frame({"do": "x"})]
SNIPPETS = st.sampled_from([*ENDS, *FIELDS, *OTHERS])


@st.composite
def near_heads(draw: st.DrawFn) -> bytes:
    """A head of the corpus, with snippets put in, and parts taken out, doubled or made anything."""
    data = draw(st.sampled_from(CASES)).data
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, min(len(data), 600)))
        end = draw(st.integers(start, min(len(data), start + 60)))
        middle = draw(st.one_of(SNIPPETS, st.binary(max_size=4), st.just(b""), st.just(data[start:end] * 2)))
        data = data[:start] + middle + data[end:]
    return data[:60_000]


SOUP = st.one_of(
    st.binary(min_size=1, max_size=200), near_heads(), st.lists(SNIPPETS, min_size=1, max_size=20).map(b"".join)
)


async def status_of(gateway: Gateway, pieces: tuple[bytes, ...]) -> int:
    """What a client gets that sends `pieces` and a FIN: the status of its answer, or 0."""
    async with Raw(gateway.port) as raw:
        try:
            for piece in pieces:
                await raw.send(piece)
                await asyncio.sleep(0)
            raw.finish()
            data = await raw.receive_all()
        except (ConnectionResetError, BrokenPipeError):
            return 0  # a refused client is not read for ever, and then its answer may be lost
    return parsed(data).status if data else 0


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # long heads are what this is about
@given(SOUP, st.lists(st.integers(1, 2000), max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_answered_below_500_or_closed_and_a_good_client_served(
    gateway: Gateway, data: bytes, places: list[int]
) -> None:
    async def scenario() -> tuple[int, int]:
        status = await status_of(gateway, cut(data, *places))
        good = await exchange(gateway.port, head("GET", "/healthz"))
        return status, good.status

    started = time.monotonic()
    status, good = asyncio.run(scenario())
    assert status < 500
    assert good == 200
    assert time.monotonic() - started < 5


def test_the_corpus_holds_handshakes_for_the_tests_above() -> None:
    assert sum(case.group == "websocket" for case in VALID) > 60
