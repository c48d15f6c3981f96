"""A WebSocket on a real socket: what a client sends arrives as the library says, whole, in order and bounded."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException
from websockets.frames import CTRL_OPCODES, Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol
from websockets.server import ServerProtocol

from stickygw.connections.flow import Flusher
from stickygw.connections.fragments import MAX_FRAGMENTS
from stickygw.connections.receiving import MAX_FRAMES_PER_TURN
from stickygw.connections.transport import SocketTransport
from stickygw.connections.websocket import WebSocket
from stickygw.observability.counters import Counters
from stickygw.wire.prepared import PreparedMessage

MAX_MESSAGE = 4096
MAX_OUTBOX = 256 * 1024
DEADLINE = 10.0


class Recorder:
    """Keeps what it is told; the end is an event."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()

    def message_received(self, message: str | bytes) -> None:
        self.messages.append(message)
        self.arrived.set()

    def connection_ended(self, code: int, reason: str) -> None:
        self.ended.set_result((code, reason))

    async def wait_messages(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()


class Pair:
    """An open WebSocket under test and the client's bare socket."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        server, self.client = socket.socketpair()
        self.client.setblocking(False)
        self.receiver = Recorder()
        self.transport = SocketTransport(server, loop, Flusher(loop))
        self.websocket = WebSocket(
            self.transport,
            ServerProtocol(state=OPEN, max_size=MAX_MESSAGE),
            self.receiver,
            loop=loop,
            max_message=MAX_MESSAGE,
            max_outbox=MAX_OUTBOX,
            counters=Counters(),
        )
        self.websocket.start(b"")
        self.peer = Protocol(CLIENT, max_size=None)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def receive_until_eof(self) -> list[Frame]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            while data := await loop.sock_recv(self.client, 65536):
                self.peer.receive_data(data)
        return [event for event in self.peer.events_received() if isinstance(event, Frame)]

    def close(self) -> None:
        self.client.close()
        self.websocket.abort()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


async def send_forever(pair: Pair, data: bytes) -> None:
    while True:
        await pair.send(data)


def frame(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


async def test_messages_of_every_size_and_kind_arrive(pair: Pair) -> None:
    sent: list[str | bytes] = ["", "hällo", "x" * 125, "x" * 126, b"\x00\xff", b"y" * MAX_MESSAGE]
    for message in sent:
        payload = message.encode() if isinstance(message, str) else message
        await pair.send(frame(Opcode.TEXT if isinstance(message, str) else Opcode.BINARY, payload))
    await pair.receiver.wait_messages(len(sent))
    assert pair.receiver.messages == sent


async def test_fragments_are_put_together_around_a_ping(pair: Pair) -> None:
    await pair.send(
        frame(Opcode.TEXT, "h\u00e4".encode()[:2], fin=False)
        + frame(Opcode.PING, b"?")
        + frame(Opcode.CONT, "h\u00e4".encode()[2:] + b"!")
    )
    await pair.receiver.wait_messages(1)
    assert pair.receiver.messages == ["h\u00e4!"]
    pair.peer.receive_data(await asyncio.get_running_loop().sock_recv(pair.client, 100))
    (pong,) = pair.peer.events_received()
    assert isinstance(pong, Frame)
    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"?")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # RSV1 without an extension
        (b"\x83\x80\0\0\0\0", 1002),  # unknown opcode
        (frame(Opcode.CONT, b"x"), 1002),  # nothing to continue
        (frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"), 1002),
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),  # a ping of 126 bytes
        (frame(Opcode.TEXT, b"\xff\xfe"), 1007),
        (frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"("), 1007),
        (frame(Opcode.BINARY, b"x" * (MAX_MESSAGE + 1)), 1009),
        (frame(Opcode.BINARY, b"x" * MAX_MESSAGE, fin=False) + frame(Opcode.CONT, b"x"), 1009),
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),  # 2**63 bytes, said to come
        (frame(Opcode.TEXT, b"", fin=False) + frame(Opcode.CONT, b"", fin=False) * MAX_FRAGMENTS, 1009),
    ],
    ids=[
        "not_masked",
        "rsv1_without_extension",
        "unknown_opcode",
        "nothing_to_continue",
        "message_within_a_message",
        "long_ping",
        "not_utf8",
        "not_utf8_in_fragments",
        "too_big",
        "too_big_in_fragments",
        "absurdly_big",
        "too_many_fragments",
    ],
)
async def test_a_broken_client_gets_its_close_code_and_the_end(pair: Pair, data: bytes, code: int) -> None:
    await pair.send(data)
    frames = await pair.receive_until_eof()
    assert Close.parse(bytes(frames[-1].data)).code == code
    pair.client.close()
    async with asyncio.timeout(DEADLINE):
        assert (await pair.receiver.ended)[0] == code
    assert pair.receiver.messages == []


async def test_a_close_is_answered_and_its_code_is_told(pair: Pair) -> None:
    await pair.send(frame(Opcode.TEXT, b"last") + frame(Opcode.CLOSE, Close(4000, "bye").serialize()))
    frames = await pair.receive_until_eof()
    assert Close.parse(bytes(frames[-1].data)) == Close(4000, "bye")
    pair.client.close()
    async with asyncio.timeout(DEADLINE):
        assert await pair.receiver.ended == (4000, "bye")
    assert pair.receiver.messages == ["last"]


async def test_a_client_that_vanishes_is_1006(pair: Pair) -> None:
    await pair.send(frame(Opcode.TEXT, b"half")[:-2])
    pair.client.close()
    async with asyncio.timeout(DEADLINE):
        assert await pair.receiver.ended == (1006, "")


async def test_a_client_that_ignores_our_close_is_cut(pair: Pair) -> None:
    pair.websocket.close(1001, "bye", within=0.05)
    async with asyncio.timeout(DEADLINE):
        assert await pair.receiver.ended == (1001, "bye")


def test_a_close_that_is_due_at_once_can_be_asked_for_again() -> None:
    async def close_twice() -> None:
        pair = Pair()
        pair.websocket.close(1001, within=0.0)
        pair.websocket.close(1001, within=1.0)
        async with asyncio.timeout(DEADLINE):
            assert (await pair.receiver.ended)[0] == 1001
        pair.client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # whose handles of such timers tell less
        runner.run(close_twice())


async def test_while_paused_nothing_is_delivered_and_nothing_is_lost(pair: Pair) -> None:
    sent = [f"m{number}" for number in range(500)]
    pair.websocket.pause()
    await pair.send(b"".join(frame(Opcode.TEXT, message.encode()) for message in sent))
    await asyncio.sleep(0)
    assert pair.receiver.messages == []
    pair.websocket.resume()
    await pair.receiver.wait_messages(len(sent))
    assert pair.receiver.messages == sent


async def test_a_receiver_that_pauses_at_each_message_gets_them_in_order(pair: Pair) -> None:
    sent = [f"m{number}" for number in range(300)]
    record = pair.receiver.message_received
    loop = asyncio.get_running_loop()

    def received(message: str | bytes) -> None:
        record(message)
        pair.websocket.pause()
        loop.call_soon(pair.websocket.resume)

    pair.receiver.message_received = received  # type: ignore[method-assign]
    await pair.send(b"".join(frame(Opcode.TEXT, message.encode()) for message in sent))
    await pair.receiver.wait_messages(len(sent))
    assert pair.receiver.messages == sent


async def test_a_flood_of_small_frames_leaves_others_their_turn(pair: Pair) -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(pair.receiver.messages) < 5000:
            loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    pair.websocket.data_received(frame(Opcode.TEXT, b"x") * 5000)
    assert len(pair.receiver.messages) == MAX_FRAMES_PER_TURN
    loop.call_soon(turn)
    await pair.receiver.wait_messages(5000)
    assert turns >= 5000 // MAX_FRAMES_PER_TURN


async def test_pings_of_a_client_that_never_reads_are_bounded(pair: Pair) -> None:
    """Their pongs would pile up without end (measured elsewhere: 71 MiB for 75 MiB of pings)."""
    flood = frame(Opcode.PING, b"x" * 125) * 500
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send_forever(pair, flood), 1.0)
    assert pair.transport.outbox_bytes < MAX_OUTBOX
    assert not pair.websocket.is_reading


async def test_pings_of_a_slow_client_are_bounded_in_its_closing_handshake_too(pair: Pair) -> None:
    """It has a second to read its 1013; meanwhile every ping asks for a pong (11 MB in that second, once)."""
    flood = frame(Opcode.PING, b"x" * 125) * 500
    message = PreparedMessage.of(b"x" * 10_000)
    most = 0
    while pair.websocket.is_open:
        pair.websocket.send(message)
    async with asyncio.timeout(DEADLINE):
        while not pair.receiver.ended.done():
            try:
                await asyncio.wait_for(pair.send(flood), timeout=0.1)
            except (TimeoutError, OSError):
                continue  # it is not read any more, or it is over
            most = max(most, pair.transport.outbox_bytes)
    assert await pair.receiver.ended == (1013, "slow consumer")
    assert most < MAX_OUTBOX * 2


async def test_a_client_that_lets_too_much_wait_is_closed_with_1013(pair: Pair) -> None:
    message = PreparedMessage.of(b"x" * 10_000)
    for _ in range(2000):
        pair.websocket.send(message)
    assert pair.transport.outbox_bytes <= MAX_OUTBOX + 20_000
    async with asyncio.timeout(DEADLINE):
        assert (await pair.receiver.ended)[0] == 1013


async def test_answers_and_close_after_back_pressure_arrive(pair: Pair) -> None:
    """What was decoded when writing resumed must be written before the FIN that it asks for."""
    record = pair.receiver.message_received

    def received(message: str | bytes) -> None:
        record(message)
        pair.websocket.send(PreparedMessage.of(b"x" * 3_000_000 if message == "big" else b"answer"))

    pair.receiver.message_received = received  # type: ignore[method-assign]
    await pair.send(frame(Opcode.TEXT, b"big"))
    await pair.receiver.wait_messages(1)
    await pair.send(frame(Opcode.TEXT, b"two") + frame(Opcode.CLOSE, Close(1000, "").serialize()))
    frames = await pair.receive_until_eof()
    assert [(event.opcode, len(event.data)) for event in frames] == [
        (Opcode.BINARY, 3_000_000),
        (Opcode.BINARY, len(b"answer")),
        (Opcode.CLOSE, 2),
    ]


async def test_many_tiny_messages_that_wait_count_by_what_they_cost(pair: Pair) -> None:
    message = PreparedMessage.of(b"")
    sent = 0
    while pair.websocket.is_open and sent < 1_000_000:
        pair.websocket.send(message)
        sent += 1
    assert sent < 500_000
    async with asyncio.timeout(DEADLINE):
        assert (await pair.receiver.ended)[0] == 1013


async def test_sends_of_one_turn_are_one_write(pair: Pair) -> None:
    for number in range(20):
        pair.websocket.send(PreparedMessage.of(f"m{number}"))
    await pair.websocket.drained()
    pair.peer.receive_data(pair.client.recv(65536))
    assert len(pair.peer.events_received()) == 20


# One property: whatever bytes come, however they are cut, the events are those of the library.

FRAGMENT = st.builds(
    lambda opcode, payload, fin: Frame(opcode, payload, fin),
    st.sampled_from(list(Opcode)),
    st.one_of(st.binary(max_size=130), st.text(max_size=20).map(str.encode), st.just(b"x" * 300)),
    st.booleans(),
)


def serialized(frame_: Frame) -> bytes:
    try:
        return frame_.serialize(mask=True)
    except WebSocketException:  # a control frame that may not be: written all the same
        head = bytes([(0x80 if frame_.fin else 0) | frame_.opcode, 0x80 | min(len(frame_.data), 125)])
        return head + b"\0\0\0\0" + bytes(frame_.data)[:125]


STREAM = st.lists(st.one_of(FRAGMENT.map(serialized), st.binary(max_size=12)), max_size=8).map(b"".join)


def what_the_library_sees(stream: bytes) -> tuple[list[str | bytes], list[bytes]]:
    """Messages and outgoing bytes of `websockets` alone, its frames put together by the book."""
    protocol = Protocol(SERVER, max_size=MAX_MESSAGE)
    messages: list[str | bytes] = []
    parts: list[bytes] = []
    is_text = False
    protocol.receive_data(stream)
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in CTRL_OPCODES:
            continue
        if event.opcode is not Opcode.CONT:
            is_text, parts = event.opcode is Opcode.TEXT, []
        parts.append(bytes(event.data))
        if event.fin:
            whole = b"".join(parts)
            try:
                messages.append(whole.decode() if is_text else whole)
            except UnicodeDecodeError:
                return messages, []  # what the application layer answers is tested above
    return messages, protocol.data_to_send()


@given(STREAM, st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=150, deadline=None)
def test_events_are_those_of_the_library_for_any_bytes(stream: bytes, cuts: list[int]) -> None:
    expected, answered = what_the_library_sees(stream)

    async def ours() -> tuple[list[str | bytes], bytes]:
        pair = Pair()
        try:
            positions = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
            for start, end in itertools.pairwise(positions):
                pair.websocket.data_received(stream[start:end])
            pair.transport.flush()
            try:
                sent = pair.client.recv(65536)
            except BlockingIOError:
                sent = b""
            return pair.receiver.messages, sent
        finally:
            pair.close()

    messages, sent = asyncio.run(ours())
    assert messages == expected
    if answered:
        assert sent == b"".join(answered)
