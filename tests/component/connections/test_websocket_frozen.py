"""Frozen it leaves its socket alone, thawed it has missed nothing, let go it is nobody's, revived it goes on."""

import asyncio
import os
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import msgpack
import pytest
import uvloop
from support.moved_socket import DEADLINE, MovedSocket, client_frame, deflated, fragmented
from websockets.frames import Opcode

from stickygw.connections.flow import HIGH_WATER_BYTES
from stickygw.connections.fragments import FRAMING_BYTES
from stickygw.connections.frozen import FrozenTransport, FrozenWebSocket
from stickygw.connections.keepalive import KeepAlive
from stickygw.types import SlowConsumer
from stickygw.wire.prepared import Batch, PreparedMessage


@pytest.fixture
async def pair() -> AsyncIterator[MovedSocket]:
    pair = MovedSocket()
    yield pair
    pair.close()


@pytest.fixture
async def slow() -> AsyncIterator[MovedSocket]:
    """Its client's socket takes a few KB."""
    pair = MovedSocket(send_buffer=4096, max_outbox=256 * 1024)
    yield pair
    pair.close()


def said(text: str) -> bytes:
    return client_frame(0x81, text.encode())


def message(text: str) -> PreparedMessage:
    return PreparedMessage.of(text)


def batch(size: int, policy: SlowConsumer, *, count: int = 1) -> Batch:
    return Batch([PreparedMessage.of(bytes([65 + number]) * size) for number in range(count)], policy)


def epoll_descriptors() -> list[int]:
    """The descriptors that some epoll of this process looks at."""
    found: list[int] = []
    for info in Path("/proc/self/fdinfo").iterdir():
        try:
            found += map(int, re.findall(r"^tfd:\s*(\d+)", info.read_text(), re.MULTILINE))
        except OSError:
            continue  # the one that lists the directory
    return found


# Frozen, and thawed


async def test_frozen_it_neither_reads_nor_writes_and_thawed_it_does_both(pair: MovedSocket) -> None:
    pair.websocket.freeze()
    await pair.send(said("hello"))
    pair.websocket.send(message("sent"))
    pair.websocket.deliver(batch(3, "disconnect"))
    pair.websocket.deliver(batch(4, "drop_oldest"))
    await pair.turn()
    assert pair.received == []
    assert pair.read_nowait() is None
    pair.websocket.thaw()
    assert [bytes(frame.data) for frame in await pair.read_frames(3)] == [b"sent", b"AAA", b"AAAA"]
    await pair.wait_until(lambda: pair.received == ["hello"])
    assert pair.websocket.sent_messages == 3
    assert not pair.websocket.is_spared


async def test_what_was_queued_in_the_same_turn_is_not_written_once_it_is_frozen(pair: MovedSocket) -> None:
    pair.websocket.send(message("queued"))
    frozen = pair.websocket.freeze()
    await pair.turn()
    assert pair.read_nowait() is None
    assert frozen.transport.outbox == message("queued").plain
    pair.websocket.thaw()
    assert (await pair.read_frames(1))[0].data == b"queued"


async def test_a_blocked_write_does_not_go_on_while_it_is_frozen(slow: MovedSocket) -> None:
    slow.websocket.send(message("x" * 50_000))
    await slow.turn()
    blocked_since = slow.websocket.blocked_since
    assert blocked_since is not None
    frozen = slow.websocket.freeze()
    assert slow.read_nowait()
    await slow.turn()
    assert slow.read_nowait() is None
    assert frozen.transport.blocked_seconds is not None
    assert slow.websocket.blocked_since == blocked_since
    slow.websocket.thaw()
    await slow.wait_until(lambda: bool(slow.read_nowait()) and slow.websocket.blocked_since is None)


async def test_who_waits_until_it_is_drained_waits_until_it_is_thawed_or_let_go(pair: MovedSocket) -> None:
    pair.websocket.freeze()
    pair.websocket.send(message("waits"))
    drained = pair.websocket.drained()
    await pair.turn()
    assert not drained.done()
    pair.websocket.thaw()
    await asyncio.wait_for(drained, DEADLINE)
    pair.websocket.freeze()
    drained = pair.websocket.drained()
    pair.websocket.let_go()
    await asyncio.wait_for(drained, DEADLINE)


async def test_messages_that_the_receiver_lets_wait_are_not_delivered_while_it_is_frozen(pair: MovedSocket) -> None:
    pair.answer = lambda message: pair.websocket.pause()
    await pair.send(said("one") + said("two"))
    await pair.wait_until(lambda: pair.received == ["one"])
    pair.websocket.freeze()
    pair.websocket.resume()
    assert pair.received == ["one"]
    pair.websocket.thaw()
    assert pair.received == ["one", "two"]


async def test_it_is_not_judged_by_keepalive_while_it_is_frozen(pair: MovedSocket) -> None:
    keepalive = KeepAlive(pair.loop, ping_interval=0.0, ping_timeout=0.0, outbox_seconds=0.0, counters=pair.counters)
    pair.websocket.freeze()
    keepalive._look_at(pair.websocket, monotonic() + 1)
    assert pair.websocket.pinged_at is None
    pair.websocket.pinged_at = pair.websocket.heard_at
    keepalive._look_at(pair.websocket, monotonic() + 1)
    pair.websocket.thaw()
    await pair.turn()
    assert pair.read_nowait() is None
    assert pair.websocket.is_open


# Ends that are asked for while it is frozen


async def test_a_close_waits_until_it_is_thawed(pair: MovedSocket) -> None:
    pair.websocket.freeze()
    pair.websocket.send(message("before"))
    pair.websocket.close(4000, "bye")
    pair.websocket.send(message("after"))
    pair.websocket.close(4001, "again")
    assert not pair.websocket.is_open
    await pair.turn()
    assert pair.read_nowait() is None
    pair.websocket.thaw()
    frames = await pair.read_frames(2)
    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [
        (Opcode.TEXT, b"before"),
        (Opcode.CLOSE, b"\x0f\xa0bye"),
    ]


async def test_an_abort_waits_until_it_is_thawed(pair: MovedSocket) -> None:
    pair.websocket.freeze()
    pair.websocket.close(4000)
    pair.websocket.abort()
    await pair.turn()
    assert pair.read_nowait() is None
    assert not pair.ended.done()
    pair.websocket.thaw()
    assert await pair.ended == (1006, "")
    assert await pair.read_to_the_end() == b""


async def test_of_a_close_that_waits_the_client_of_a_moved_one_hears_nothing(pair: MovedSocket) -> None:
    old = pair.websocket
    packed = msgpack.packb(old.freeze().to_plain())
    old.close(4000)
    pair.websocket = pair.revive(packed)
    old.let_go()
    pair.websocket.start()
    pair.websocket.send(message("here"))
    assert (await pair.read_frames(1))[0].data == b"here"


async def test_more_than_the_outbox_may_have_closes_it_with_1013_when_it_is_thawed(slow: MovedSocket) -> None:
    slow.websocket.freeze()
    for _ in range(100):
        slow.websocket.send(message("x" * 10_000))
    assert slow.websocket.unsent_bytes < 300 * 1024
    await slow.turn()
    assert slow.read_nowait() is None
    assert slow.counters.by_name() == {}
    slow.websocket.thaw()
    assert slow.counters.by_name() == {"connections_closed{slow_consumer}": 1}
    async with asyncio.timeout(DEADLINE):
        assert await slow.ended == (1013, "slow consumer")


async def test_it_is_closed_for_what_was_not_kept_even_if_the_rest_can_be_written_when_it_is_thawed(
    pair: MovedSocket,
) -> None:
    pair.websocket.freeze()
    for _ in range(110):
        pair.websocket.send(message("x" * 10_000))
    pair.websocket.thaw()
    assert pair.websocket.unsent_bytes < pair.max_outbox
    assert not pair.websocket.is_open
    assert pair.counters.by_name() == {"connections_closed{slow_consumer}": 1}


async def test_one_that_reads_too_slowly_while_it_is_frozen_is_closed_and_counted_when_it_is_thawed(
    slow: MovedSocket,
) -> None:
    slow.websocket.send(message("x" * 50_000))
    await slow.turn()
    slow.websocket.freeze()
    slow.websocket.close_slow()
    assert slow.counters.by_name() == {}
    slow.websocket.thaw()
    assert slow.counters.by_name() == {"connections_closed{slow_consumer}": 1}
    assert [len(frame.data) for frame in await slow.read_frames(2)] == [50_000, 2 + len("slow consumer")]


async def test_one_long_message_is_not_more_than_the_outbox_may_have(slow: MovedSocket) -> None:
    slow.websocket.freeze()
    slow.websocket.send(message("x" * 1_000_000))
    slow.websocket.thaw()
    assert len((await slow.read_frames(1))[0].data) == 1_000_000
    assert slow.websocket.is_open


@pytest.mark.parametrize("is_moved", [False, True])
async def test_what_its_rooms_drop_while_it_is_frozen_counts_if_it_was_for_this_process(
    slow: MovedSocket, is_moved: bool
) -> None:
    old = slow.websocket
    packed = msgpack.packb(old.freeze().to_plain())
    for letter in "ABCDEFGHIJ":
        old.deliver(Batch([message(letter * 50_000)], "drop_oldest"))
    old.deliver(batch(50_000, "drop_newest", count=2))
    assert old.unsent_bytes <= 256 * 1024
    assert slow.counters.by_name() == {}
    if is_moved:
        slow.websocket = slow.revive(packed)
        old.let_go()
        slow.websocket.start()
        assert slow.counters.by_name() == {}
    else:
        old.thaw()
        assert slow.counters.by_name() == {"messages_dropped{newest}": 2, "messages_dropped{oldest}": 5}
        assert slow.websocket.is_spared
        assert b"".join(bytes(frame.data[:1]) for frame in await slow.read_frames(5)) == b"FGHIJ"
        assert old.sent_messages == 5


# The transport alone


class Owner:
    """Of a bare transport."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def write_resumed(self) -> None:
        self.told.append("resumed")

    def transport_closed(self) -> None:
        self.told.append("closed")


async def test_whatever_is_asked_of_a_frozen_transport_waits(pair: MovedSocket) -> None:
    transport, owner = pair.transport, Owner()
    transport.detach()
    transport.freeze()
    await pair.send(b"from the client")
    transport.start(owner)
    transport.pause_reading()
    transport.resume_reading()
    transport.write_now(b"one ")
    transport.write(b"two ")
    transport.write_now(b"three")
    transport.close()
    await pair.turn()
    assert owner.told == []
    assert pair.read_nowait() is None
    transport.thaw()
    assert await pair.read_to_the_end() == b"one two three"
    pair.client.close()
    await pair.wait_until(lambda: owner.told == ["closed"])


async def test_a_thawed_transport_reads_for_the_owner_that_it_was_given_meanwhile(pair: MovedSocket) -> None:
    transport, owner = pair.transport, Owner()
    transport.freeze()
    transport.start(owner)
    await pair.send(b"more")
    await pair.turn()
    transport.thaw()
    await pair.wait_until(lambda: owner.told == [b"more"])


async def test_a_transport_that_was_closed_while_frozen_says_fin_when_it_is_thawed(pair: MovedSocket) -> None:
    pair.transport.freeze()
    pair.transport.close()
    assert pair.read_nowait() is None
    pair.transport.thaw()
    assert pair.read_nowait() == b""


# Let go


@pytest.mark.parametrize("is_tcp", [False, True])
@pytest.mark.parametrize("loop_of", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_let_go_it_says_nothing_to_anybody_and_looks_at_the_socket_no_more(loop_of: object, is_tcp: bool) -> None:
    async def main() -> None:
        pair = MovedSocket(send_buffer=4096, is_tcp=is_tcp)
        await pair.send(said("unfinished")[:5])
        await pair.wait_until(lambda: pair.transport.received_bytes == 5)
        pair.websocket.send(message("x" * 10_000_000))  # so that it waits to write, too
        await pair.turn()
        number = pair.websocket.fileno()
        assert number in epoll_descriptors()
        copy = os.dup(number)
        try:
            pair.websocket.freeze()
            assert number not in epoll_descriptors()
            await pair.send(b"for the other")  # unread when it is closed here, which for a last copy were RST
            pair.websocket.let_go()
            pair.websocket.let_go()
            assert pair.websocket.fileno() == -1
            await pair.turn()
            while (data := pair.read_nowait()) is not None:
                assert data, "the end"
            pair.websocket.send(message("nobody's"))
            pair.websocket.close(1000)
            pair.websocket.abort()
            pair.websocket.thaw()
            await pair.turn()
            assert os.read(copy, 100) == b"for the other"
            os.write(copy, b"from the other")
            tail = b""
            async with asyncio.timeout(DEADLINE):
                while not tail.endswith(b"from the other"):
                    tail = tail[-100:] + await pair.loop.sock_recv(pair.client, 65536)
            assert not pair.ended.done()
            assert pair.websocket.unsent_bytes == 0
        finally:
            pair.close()
            os.close(copy)
        assert not pair.ended.done()

    with asyncio.Runner(loop_factory=loop_of) as runner:  # type: ignore[arg-type]
        runner.run(main())


async def test_only_a_frozen_one_can_be_let_go(pair: MovedSocket) -> None:
    with pytest.raises(RuntimeError):
        pair.websocket.let_go()
    assert pair.websocket.is_open


# When it cannot be frozen


async def test_it_cannot_be_frozen_twice_nor_while_its_receiver_is_given_a_message(pair: MovedSocket) -> None:
    could: list[bool] = []
    pair.answer = lambda message: could.append(pair.websocket.can_freeze)
    await pair.send(said("now"))
    await pair.wait_until(lambda: bool(could))
    assert could == [False]
    assert pair.websocket.can_freeze
    pair.websocket.freeze()
    with pytest.raises(RuntimeError):
        pair.websocket.freeze()


async def test_it_cannot_be_frozen_once_its_end_has_begun(pair: MovedSocket) -> None:
    pair.websocket.close(1000)
    assert not pair.websocket.can_freeze
    with pytest.raises(RuntimeError):
        pair.websocket.freeze()


async def test_it_cannot_be_frozen_once_the_client_has_sent_its_last_byte(slow: MovedSocket) -> None:
    slow.websocket.send(message("x" * 50_000))
    slow.websocket.eof_received()  # as the transport tells it
    assert slow.websocket.is_open  # its last turn
    assert not slow.websocket.can_freeze


async def test_in_a_compressed_message_that_is_mostly_framing_it_cannot_be_frozen() -> None:
    """Its frames would have to travel, and nothing bounds them but this: they decompress to nothing."""
    nothing = b"\x00\x00\x00\xff\xff" * 3000
    pair = MovedSocket(max_message=20_000, window_bits=15)
    try:
        await pair.send(client_frame(0x41, nothing))
        for _ in range((20_000 + FRAMING_BYTES) // len(nothing) - 1):
            await pair.send(client_frame(0x00, nothing))
        await pair.wait_until(lambda: pair.transport.received_bytes > FRAMING_BYTES)
        assert pair.websocket.can_freeze
        pair.move()
        await pair.send(client_frame(0x00, nothing))
        await pair.turn()
        assert not pair.websocket.can_freeze
        await pair.send(client_frame(0x80, deflated(b"over")))
        await pair.wait_until(lambda: pair.received == ["over"])
        assert pair.websocket.can_freeze
    finally:
        pair.close()


# Revived


async def test_nothing_touches_the_socket_before_start(pair: MovedSocket) -> None:
    pair.websocket.send(message("unwritten"))
    await pair.send(said("unfinished")[:9])
    await pair.wait_until(lambda: pair.transport.received_bytes == 9)
    pair.websocket.send(message("unwritten too"))
    pair.take_over()
    pair.websocket.send(message("at"))
    await pair.send(said("unfinished")[9:])
    assert len(await pair.read_frames(1)) == 1
    await pair.turn()
    assert pair.read_nowait() is None
    assert pair.received == []
    pair.websocket.start()
    assert [bytes(frame.data) for frame in await pair.read_frames(2)] == [b"unwritten too", b"at"]
    await pair.wait_until(lambda: pair.received == ["unfinished"])


async def test_one_that_is_not_started_can_be_let_go_as_if_it_had_never_come(pair: MovedSocket) -> None:
    frozen = pair.websocket.freeze()
    old = pair.websocket
    pair.revive(msgpack.packb(frozen.to_plain())).let_go()
    old.thaw()
    old.send(message("still here"))
    assert (await pair.read_frames(1))[0].data == b"still here"


async def test_ages_and_counts_travel(pair: MovedSocket) -> None:
    pair.answer = lambda text: pair.websocket.send(PreparedMessage.of(text))
    await pair.send(said("one"))
    await pair.read_frames(1)
    old = pair.websocket
    old.heard_at -= 7.0
    old.pinged_at = old.heard_at + 2.0
    new = pair.take_over()
    assert new.heard_at == pytest.approx(old.heard_at, abs=1.0)
    assert new.pinged_at == pytest.approx(old.pinged_at, abs=1.0)
    new.start()
    await pair.send(said("two"))
    await pair.read_frames(1)
    assert (new.received_messages, new.sent_messages) == (2, 2)
    assert pair.transport.received_bytes == 2 * len(said("one"))
    assert pair.transport.sent_bytes == 2 * len(message("one").plain)


async def test_how_long_a_client_has_not_read_travels(slow: MovedSocket) -> None:
    slow.websocket.send(message("x" * 200_000))
    await slow.turn()
    assert slow.transport.blocked_since is not None
    slow.transport.blocked_since -= 5.0
    slow.move()
    assert slow.websocket.blocked_since == pytest.approx(monotonic() - 5.0, abs=1.0)
    assert not slow.websocket.is_reading  # what it makes us write is bounded as before
    assert len((await slow.read_frames(1))[0].data) == 200_000
    await slow.wait_until(lambda: slow.websocket.is_reading)
    assert slow.websocket.blocked_since is None
    await slow.send(said("reads again"))
    await slow.wait_until(lambda: slow.received == ["reads again"])


async def test_what_a_room_may_drop_may_be_dropped_after_the_move_too_and_nothing_else(slow: MovedSocket) -> None:
    slow.websocket.send(message("x" * 50_000))
    await slow.turn()
    slow.websocket.deliver(batch(40_000, "drop_oldest"))
    slow.websocket.deliver(Batch([message("kept")]))
    slow.websocket.deliver(batch(40_000, "drop_oldest", count=3))
    slow.move()
    assert slow.websocket.is_spared
    slow.websocket.deliver(batch(40_000, "drop_oldest", count=3))
    assert slow.counters.by_name() == {"messages_dropped{oldest}": 2}
    frames = await slow.read_frames(7)
    assert b" ".join(bytes(frame.data[:4]) for frame in frames) == b"xxxx kept BBBB CCCC AAAA BBBB CCCC"
    assert slow.websocket.sent_messages == 7
    await slow.turn()
    assert not slow.websocket.is_spared


async def test_frames_that_wait_for_their_turn_are_delivered_once(pair: MovedSocket) -> None:
    await pair.send(said("x") * 1000)
    await pair.wait_until(lambda: len(pair.received) >= 256)
    assert len(pair.received) < 1000
    pair.move()
    await pair.wait_until(lambda: len(pair.received) >= 1000)
    await pair.turn()
    assert pair.received == ["x"] * 1000


@pytest.mark.parametrize("opcode", [0x1, 0x2])
async def test_fragments_of_every_size_travel(pair: MovedSocket, opcode: int) -> None:
    sizes = [0, 1, 125, 126, 127, 65535, 65536, 70_000]
    whole = b"".join(bytes([97 + place]) * size for place, size in enumerate(sizes))
    cuts = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    await pair.send(fragmented(opcode, whole, cuts, is_whole=False))
    pair.move()
    await pair.wait_until(lambda: pair.transport.received_bytes > len(whole))
    pair.move()
    pair.move()
    await pair.send(client_frame(0x80, b"."))
    await pair.wait_until(lambda: bool(pair.received))
    assert pair.received == [whole + b"." if opcode == 0x2 else whole.decode() + "."]


async def test_a_smaller_bound_holds_for_the_message_that_is_coming(pair: MovedSocket) -> None:
    await pair.send(fragmented(0x2, b"y" * 5000, [1000, 4000], is_whole=False))
    await pair.wait_until(lambda: pair.transport.received_bytes > 5000)
    pair.max_message = 3000
    pair.move()
    assert (await pair.read_frames(1))[0].data[:2] == (1009).to_bytes(2, "big")
    pair.client.shutdown(1)
    async with asyncio.timeout(DEADLINE):
        assert (await pair.ended)[0] == 1009


async def test_a_client_with_a_smaller_window_keeps_it() -> None:
    """A message that refers further back than was agreed upon is refused after a move too."""
    pair = MovedSocket(window_bits=9)
    try:
        seed = os.urandom(2000)
        compressor = zlib.compressobj(wbits=-15)
        first = compressor.compress(seed) + compressor.flush(zlib.Z_SYNC_FLUSH)
        far = first + compressor.compress(seed) + compressor.flush(zlib.Z_SYNC_FLUSH)
        pair.move()
        await pair.send(fragmented(0x2, far[:-4], [len(first)], rsv1=True))
        assert (await pair.read_frames(1))[0].data[:2] == (1002).to_bytes(2, "big")
    finally:
        pair.close()


async def test_a_dead_client_ends_it_when_it_is_started(pair: MovedSocket) -> None:
    pair.websocket.send(message("unwritten"))
    pair.take_over()
    pair.client.close()
    pair.websocket.start()
    async with asyncio.timeout(DEADLINE):
        assert await pair.ended == (1006, "")


# As plain data


async def test_the_state_survives_msgpack_and_is_small(slow: MovedSocket) -> None:
    idle = slow.websocket.freeze()
    assert len(msgpack.packb(idle.to_plain())) < 64
    slow.websocket.thaw()
    slow.websocket.send(message("x" * (HIGH_WATER_BYTES + 1)))
    slow.websocket.deliver(batch(100, "drop_newest", count=2))
    await slow.send(said("half")[:4])
    await slow.turn()
    frozen = slow.websocket.freeze()
    assert FrozenWebSocket.of_plain(msgpack.unpackb(msgpack.packb(frozen.to_plain()))) == frozen


@pytest.mark.parametrize(
    "plain",
    [
        [],
        None,
        [1, 2, 3],
        [[b"", 0, None, 0, 0], 0, b"", [], False, 0, 0, 0.0],
        [[b"", 0, None, 0, 0], 0, b"", [], False, 0, 0, 0.0, None, "more"],
        [[b"", 0, None, 0], 0, b"", [], False, 0, 0, 0.0, None],
        [["", 0, None, 0, 0], 0, b"", [], False, 0, 0, 0.0, None],
        [[b"", 0, None, 0, 0], 7, b"", [], False, 0, 0, 0.0, None],
        [[b"", 0, None, 0, 0], 0, b"", [["text", True]], False, 0, 0, 0.0, None],
        [[b"", 0, None, 0, 0], 0, b"", [b"frame"], False, 0, 0, 0.0, None],
        [[b"", 0, None, 0, 0], 0, b"", [], False, 0, 0, None, None],
        [[b"", 0, "long", 0, 0], 0, b"", [], False, 0, 0, 0.0, None],
    ],
)
def test_anything_else_is_no_frozen_websocket(plain: object) -> None:
    good = FrozenWebSocket(FrozenTransport(b"", 0, None, 0, 0), 0, b"", (), False, 0, 0, 0.0, None)
    assert FrozenWebSocket.of_plain(good.to_plain()) == good
    with pytest.raises(ValueError, match="not"):
        FrozenWebSocket.of_plain(plain)  # type: ignore[arg-type]
