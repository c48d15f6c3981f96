"""Whatever comes or goes, wherever it is cut, and whenever the WebSocket moves: nobody sees a difference."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from support.moved_socket import DEADLINE, MovedSocket, client_frame, deflated, fragmented

from stickygw.types import SlowConsumer
from stickygw.wire.prepared import Batch, PreparedMessage

MAX_MESSAGE = 4096

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(loop: Callable[[], asyncio.AbstractEventLoop], coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(coroutine)


# What comes

PINGS = st.lists(st.binary(max_size=125), max_size=2).map(lambda each: b"".join(client_frame(0x89, p) for p in each))

PAYLOAD = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=300),
    st.builds(lambda seed, count: seed * count, st.binary(min_size=1, max_size=40), st.integers(1, 150)),
)


@st.composite
def data_messages(draw: st.DrawFn, window_bits: int) -> bytes:
    opcode, payload = draw(st.sampled_from([0x1, 0x2])), draw(PAYLOAD)
    rsv1 = window_bits > 0 and draw(st.booleans())
    if rsv1:
        payload = deflated(payload, window_bits)
    cuts = draw(st.lists(st.integers(0, max(1, len(payload))), max_size=5))
    return fragmented(opcode, payload, cuts, rsv1=rsv1, between=draw(PINGS), is_whole=draw(st.integers(0, 9)) > 0)


ODD = st.one_of(
    st.binary(max_size=12),
    st.builds(client_frame, st.integers(0, 255), st.binary(max_size=130)),
    st.builds(
        lambda code, reason: client_frame(0x88, code.to_bytes(2, "big") + reason.encode()),
        st.sampled_from([1000, 1001, 1005, 3000, 4999]),
        st.text(max_size=20),
    ),
    st.just(client_frame(0x88, b"")),
    st.just(client_frame(0x8A, b"pong")),
    st.just(client_frame(0x81, b"x") * 600),  # more than one turn's frames
)

Step = Literal["move", "move twice", "thaw", "pause", "resume"]


@dataclass
class Script:
    """Bytes of a client, and at which of them what happens to the server's side."""

    window_bits: int
    stream: bytes
    steps: list[tuple[int, Step]]


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    window_bits = draw(st.sampled_from([0, 9, 15]))
    usual = st.one_of(data_messages(window_bits), data_messages(window_bits), PINGS)
    pieces = draw(st.lists(usual, max_size=6)) + draw(st.lists(ODD, max_size=2)) + draw(st.lists(usual, max_size=1))
    stream = b"".join(pieces)
    step: st.SearchStrategy[Step] = st.sampled_from(["move", "move", "move twice", "thaw", "pause", "resume"])
    steps = draw(st.lists(st.tuples(st.integers(0, len(stream)), step), max_size=8))
    return Script(window_bits, stream, sorted(steps, key=lambda each: each[0]))


@dataclass
class Seen:
    """What the application and the client see of one connection."""

    messages: list[str | bytes]
    end: tuple[int, str]
    bytes_back: bytes
    received_messages: int
    sent_messages: int
    received_bytes: int
    moves: int = 0


async def play(script: Script, *, are_moving: bool) -> Seen:
    pair = MovedSocket(max_message=MAX_MESSAGE, window_bits=script.window_bits)
    try:
        pair.answer = lambda message: pair.websocket.send(PreparedMessage.of(message))
        is_paused, position, moves = False, 0, 0
        for at, step in [*script.steps, (len(script.stream), "resume")]:
            await pair.send(script.stream[position:at])
            position = at
            if are_moving:  # how much of it is read by now is the loop's business, unless it is all
                await pair.turn(2)
            if step == "pause":
                is_paused = True
                pair.websocket.pause()
            elif step == "resume":
                is_paused = False
                pair.websocket.resume()
            elif are_moving and pair.websocket.can_freeze:
                moves += 1
                if step == "thaw":
                    pair.websocket.freeze()
                    await pair.turn(1)
                    pair.websocket.thaw()
                    continue
                for _ in range(2 if step == "move twice" else 1):
                    if pair.websocket.can_freeze:
                        pair.take_over()
                        if is_paused:
                            pair.websocket.pause()
                        await pair.turn(1)
                        pair.websocket.start()
        await pair.wait_until(lambda: pair.ended.done() or pair.transport.received_bytes == len(script.stream))
        pair.client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(DEADLINE):
            end = await pair.ended
        bytes_back = await pair.read_to_the_end()
        last = pair.websocket
        return Seen(
            pair.received,
            end,
            bytes_back,
            last.received_messages,
            last.sent_messages,
            pair.transport.received_bytes,
            moves,
        )
    finally:
        pair.close()


@pytest.mark.parametrize("loop", LOOPS)
@given(script=scripts())
@settings(max_examples=250, deadline=None)
def test_a_moved_connection_sees_and_answers_what_an_unmoved_one_does(
    loop: Callable[[], asyncio.AbstractEventLoop], script: Script
) -> None:
    still = run(loop, play(script, are_moving=False))
    moved = run(loop, play(script, are_moving=True))
    moved.moves = 0
    assert moved == still


def test_a_move_at_every_single_byte_of_a_stream_changes_nothing() -> None:
    text = "jede Nachricht, jede Nachricht, jede Nachricht, überall ".encode() * 3
    stream = (
        client_frame(0x81, b"short")
        + fragmented(0x1, text, [3, 60, 61], between=client_frame(0x89, b"p"))
        + fragmented(0x1, deflated(text), [5, 9, 30], rsv1=True, between=client_frame(0x89, b"q"))
        + client_frame(0xC2, deflated(b"\x00" * 4000))
        + client_frame(0x82, b"z" * 300)
        + client_frame(0x88, b"\x03\xe8bye")
    )
    everywhere: list[tuple[int, Step]] = [(position, "move") for position in range(len(stream))]
    still = asyncio.run(play(Script(15, stream, []), are_moving=False))
    moved = asyncio.run(play(Script(15, stream, everywhere), are_moving=True))
    assert still.end == (1000, "bye")
    assert len(still.messages) == 5
    assert moved.moves == len(stream)
    moved.moves = 0
    assert moved == still


# What goes

POLICIES: list[SlowConsumer] = ["disconnect", "drop_oldest", "drop_newest"]

SEND = st.tuples(st.just("send"), st.sampled_from([0, 5, 100, 3000, 30_000, 90_000]))
DELIVER = st.tuples(
    st.just("deliver"), st.sampled_from([1, 200, 5000, 40_000]), st.integers(1, 4), st.sampled_from(POLICIES)
)
READ = st.tuples(st.just("read"), st.sampled_from([1, 100, 5000, 50_000]))
TURN = st.tuples(st.just("turn"))
SENDING = st.lists(st.one_of(SEND, DELIVER), max_size=3)
MOVE = st.tuples(st.sampled_from(["move", "thaw"]), SENDING)


class Sender:
    """Sends numbered messages; each is as long as it is told, and names itself."""

    def __init__(self, pair: MovedSocket) -> None:
        self.pair = pair
        self.sent: list[bytes] = []

    def do(self, step: tuple[Any, ...]) -> None:
        websocket = self.pair.websocket
        if step[0] == "send":
            websocket.send(self._message(step[1]))
        else:
            websocket.deliver(Batch([self._message(step[1]) for _ in range(step[2])], step[3]))

    def _message(self, size: int) -> PreparedMessage:
        payload = b"%d:" % len(self.sent) + bytes((len(self.sent) * 7 + place) % 251 for place in range(min(size, 500)))
        payload += b"-" * (size - len(payload))
        self.sent.append(payload)
        return PreparedMessage.of(payload)


async def play_sending(steps: list[tuple[Any, ...]], window_bits: int) -> None:
    pair = MovedSocket(max_outbox=1 << 24, send_buffer=4096, window_bits=window_bits)
    try:
        sender = Sender(pair)
        got: list[bytes] = []
        count = 0

        def read(size: int) -> None:
            nonlocal count
            data = pair.read_nowait(size)
            assert data != b""
            if data:
                count += len(data)
                got.extend(bytes(frame.data) for frame in pair.frames_of(data))

        for step in steps:
            if step[0] == "read":
                read(step[1])
            elif step[0] == "turn":
                await pair.turn(1)
            elif step[0] in ("send", "deliver"):
                sender.do(step)
            else:
                if step[0] == "thaw":
                    pair.websocket.freeze()
                else:
                    pair.take_over()
                for inner in step[1]:
                    sender.do(inner)
                await pair.turn(1)
                pair.websocket.start()
        async with asyncio.timeout(DEADLINE):
            while len(got) < len(sender.sent):
                read(65536)
                await asyncio.sleep(0)
        assert got == sender.sent
        assert not pair.counters.by_name()
        assert pair.websocket.sent_messages == len(sender.sent)
        assert pair.transport.sent_bytes == count
        assert pair.websocket.unsent_bytes == 0
        assert pair.websocket.is_reading
    finally:
        pair.close()


@pytest.mark.parametrize("loop", LOOPS)
@given(steps=st.lists(st.one_of(SEND, DELIVER, READ, TURN, MOVE), max_size=25), window_bits=st.sampled_from([0, 12]))
@settings(max_examples=150, deadline=None)
def test_what_is_sent_before_at_and_after_a_move_arrives_whole_and_in_order(
    loop: Callable[[], asyncio.AbstractEventLoop], steps: list[tuple[Any, ...]], window_bits: int
) -> None:
    run(loop, play_sending(steps, window_bits))
