"""Each client stays on its worker, however it comes back and however its bytes are cut."""

import asyncio
import json
import socket
from collections import Counter
from pathlib import Path

import pytest
from support.client import Client, gather_bounded
from support.gateway import Gateway
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

PROBE = f"{Path(__file__).parent / 'apps' / 'probe.py'}:app"


async def visits(url: str, count: int) -> tuple[list[int], list[str], int]:
    """The slots and sessions that one visitor met on `count` visits, and how many cookies it was given."""
    client = Client(url)
    slots, sessions = [], []
    for _ in range(count):
        async with client:
            answer = await client.who()
        slots.append(answer["slot"])
        sessions.append(answer["session"])
    assert answer["fields"] == {"visits": count}
    return slots, sessions, client.cookies_set


@pytest.mark.parametrize(
    ("clients", "evenness"), [(80, 0.6), pytest.param(400, 0.8, marks=[pytest.mark.long, pytest.mark.alone])]
)
async def test_clients_keep_slot_and_session_over_five_reconnects(clients: int, evenness: float) -> None:
    """`evenness`: so many of the fullest slot's clients the emptiest has at least."""
    # By connections alone: how late the loops are is a matter of the machine.
    with Gateway(PROBE, "--set", "balance_by=connections", workers=4) as gateway:
        results = await gather_bounded(40, *(visits(gateway.ws_url, 6) for _ in range(clients)))
    for slots, sessions, cookies_set in results:
        assert len(set(slots)) == 1
        assert len(set(sessions)) == 1
        assert cookies_set == 1
    assert len({sessions[0] for _, sessions, _ in results}) == clients
    share = Counter(slots[0] for slots, _, _ in results)
    print(f"clients per slot: {dict(share)}, fewest/most {min(share.values()) / max(share.values()):.2f}")
    assert len(share) == 4
    assert min(share.values()) / max(share.values()) >= evenness


def handshake(host: str, cookie: str) -> bytes:
    """A small upgrade request with a signed cookie, and its first frame in the same segment."""
    head = (
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nCookie: {cookie}\r\n\r\n"
    )
    return head.encode() + Frame(Opcode.TEXT, b'{"do":"who"}').serialize(mask=True)


async def slot_of(port: int, pieces: list[bytes]) -> int:
    """The slot that answers a handshake sent in these pieces, one segment each."""
    loop = asyncio.get_running_loop()
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(20):
            for piece in pieces:
                await loop.sock_sendall(sock, piece)
                await asyncio.sleep(0)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await received(sock)
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            peer = Protocol(CLIENT)
            peer.receive_data(rest)
            while not (events := peer.events_received()):
                peer.receive_data(await received(sock))
        (frame,) = events
        assert isinstance(frame, Frame)
        return int(json.loads(bytes(frame.data))["slot"])
    finally:
        sock.close()


async def received(sock: socket.socket) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(sock, 65536)
    assert data, "the gateway closed the connection"
    return data


@pytest.fixture(scope="module")
def gateway():
    with Gateway(PROBE, workers=4) as gateway:
        yield gateway


async def test_a_handshake_cut_at_any_byte_reaches_the_same_slot(gateway: Gateway) -> None:
    async with Client(gateway.ws_url) as client:
        slot = (await client.who())["slot"]
    assert client.cookie is not None
    request = handshake(f"127.0.0.1:{gateway.port}", client.cookie)
    cuts = [slot_of(gateway.port, [request[:cut], request[cut:]]) for cut in range(1, len(request))]
    assert set(await gather_bounded(20, *cuts)) == {slot}


async def test_a_handshake_sent_byte_by_byte_reaches_the_same_slot(gateway: Gateway) -> None:
    async with Client(gateway.ws_url) as client:
        slot = (await client.who())["slot"]
    assert client.cookie is not None
    request = handshake(f"127.0.0.1:{gateway.port}", client.cookie)
    assert await slot_of(gateway.port, [bytes([byte]) for byte in request]) == slot


async def test_two_tabs_of_one_visitor_share_worker_and_session(gateway: Gateway) -> None:
    async with Client(gateway.ws_url) as first:
        second = Client(gateway.ws_url)
        second.cookie = first.cookie
        async with second:
            await first.ask(do="set", field="name", value="Ada")
            answers = await first.who(), await second.who()
    assert answers[0] == answers[1]
    assert answers[1]["fields"] == {"visits": 2, "name": "Ada"}
