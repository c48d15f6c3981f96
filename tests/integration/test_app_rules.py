"""What an application may rely on: the order of its handlers, the ends of connections, and what it can't break."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis import Redis
from support.client import DEADLINE, Client
from support.closes import close_of, closing
from support.gateway import Gateway
from support.logs import logged, whole_log
from support.raw import Raw, exchange, frame, upgrade
from support.waiting import wait_until

RULES = Path(__file__).parent / "apps" / "rules.py"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    # One worker: whoever must not notice anything is on the same event loop.
    # No bound on time, so that the one on bytes is seen.
    with Gateway(f"{RULES}:app", "--set", "outbox_seconds=3600", workers=1) as gateway:
        yield gateway
        # Every traceback is one that a test wanted.
        log = whole_log(gateway)
        assert log.count("Traceback") == log.count("\n  RuntimeError: on purpose")


@asynccontextmanager
async def watched(gateway: Gateway) -> AsyncIterator[tuple[str, Client]]:
    """A report room of the test's own, and who watches it."""
    report = secrets.token_hex(4)
    async with Client(f"{gateway.ws_url}/watch/{report}") as watcher:
        assert await watcher.ask(marker=0) == {"marker": 0}  # it has joined
        yield report, watcher


async def reports(watcher: Client, count: int) -> list[Any]:
    """The next `count` reports. Nothing else may have come: a marker is the next message."""
    found = [await watcher.receive() for _ in range(count)]
    marker = {"marker": secrets.token_hex(4)}
    assert await watcher.ask(**marker) == marker
    return found


@pytest.fixture
def redis(gateway: Gateway) -> Iterator[Redis]:
    """The gateway's store, seen by another program."""
    with Redis(unix_socket_path=str(gateway.runtime_dir / "valkey.sock")) as redis:
        yield redis


# A handler that raises


@pytest.mark.parametrize(
    ("path", "query", "message", "error"),
    [
        ("rules", "", {"do": "raise"}, "on purpose"),
        ("plain", "", {"do": "raise"}, "on purpose, in def"),
        ("loop", "", {"do": "raise"}, "on purpose, in a coroutine"),
        ("rules", "?raise_in_connect", {"do": "echo"}, "on purpose, in on_connect"),
        ("loop", "?raise_in_connect", {"do": "echo"}, "on purpose, in on_connect"),
    ],
)
async def test_a_handler_that_raises_ends_its_connection_with_1011_and_no_other(
    gateway: Gateway, path: str, query: str, message: dict[str, str], error: str
) -> None:
    async with watched(gateway) as (report, watcher):
        async with Raw(gateway.port) as raw:
            # In one segment, so that the later ones are here when the first raises.
            messages = [frame(message), *(frame({"do": "handled"}) for _ in range(3))]
            await raw.send(upgrade(f"/{path}/{report}{query}") + b"".join(messages))
            await raw.opened()
            assert closing(await raw.next_frame()) == (1011, "internal error")
        on_error, left = await reports(watcher, 2)
    assert on_error["on_error"] == error
    assert left["left"] == [1011, "internal error"]
    text = await logged(gateway, f"a handler raised connection={on_error['id']}", f"RuntimeError: {error}")
    assert " ERROR " in text
    assert text.count("Traceback (most recent call last)") == 1


async def test_an_on_disconnect_that_raises_is_logged_and_told_to_on_error(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher):
        async with Client(f"{gateway.ws_url}/rules/{report}?raise_in_disconnect"):
            pass
        left, on_error = await reports(watcher, 2)
    assert left["left"] == [1000, ""]
    assert on_error["on_error"] == "on purpose, in on_disconnect"
    await logged(gateway, f"a handler raised connection={on_error['id']}", "RuntimeError: on purpose, in on_disconnect")


async def test_what_a_handler_wrote_before_it_raised_is_kept(gateway: Gateway, redis: Redis) -> None:
    async with watched(gateway) as (report, watcher):
        async with Client(f"{gateway.ws_url}/rules/{report}") as client:
            await client.send({"do": "set and raise", "field": "kept", "value": 1})
            assert await close_of(client.connection) == (1011, "internal error")
        await reports(watcher, 2)
    assert fields_of(redis, client) == {"kept": 1}


# The end of a connection


async def test_on_disconnect_is_told_the_clients_code_and_reason_and_still_the_rooms(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher):
        async with Client(f"{gateway.ws_url}/rules/{report}") as client:
            for room in ("b", "a"):
                await client.ask(do="join", room=f"{report}-{room}")
            await client.connection.close(4321, "bye")
        (left,) = await reports(watcher, 1)
    rooms = [f"{report}-a", f"{report}-b"]
    assert left == {"left": [4321, "bye"], "rooms": rooms, "refused": [4321, "bye"], "is_open": False}


async def test_on_disconnect_runs_once_after_a_reset(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Raw(gateway.port) as raw:
        await raw.send(upgrade(f"/rules/{report}") + frame({"do": "join", "room": f"{report}-a"}))
        await raw.opened()
        assert await raw.next_frame() is not None
        raw.reset()
        (left,) = await reports(watcher, 1)
    assert left == {"left": [1006, ""], "rooms": [f"{report}-a"], "refused": [1006, ""], "is_open": False}


async def test_on_disconnect_runs_once_after_a_fin_without_a_close_frame(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Raw(gateway.port) as raw:
        await raw.send(upgrade(f"/rules/{report}"))
        await raw.opened()
        raw.finish()
        assert await raw.next_frame() is None
        (left,) = await reports(watcher, 1)
    assert left["left"] == [1006, ""]


async def test_on_disconnect_after_a_reset_waits_for_the_handler_at_work(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Raw(gateway.port) as raw:
        await raw.send(upgrade(f"/rules/{report}") + frame({"do": "hold", "at": report}) + frame({"do": "handled"}))
        await raw.opened()
        assert await reports(watcher, 1) == [{"holds": report}]
        raw.reset()
        assert await reports(watcher, 0) == []
        await watcher.send({"open": report})
        handled, left = await reports(watcher, 2)
    assert handled == {"handled": {"do": "handled"}}  # it had come, so it is handled
    assert left["left"] == [1006, ""]


async def test_an_application_closes_with_its_own_code_and_reason(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher):
        async with Client(f"{gateway.ws_url}/rules/{report}") as client:
            await client.send({"do": "close", "code": 4000, "reason": "enough"})
            assert await close_of(client.connection) == (4000, "enough")
        (left,) = await reports(watcher, 1)
    assert left["left"] == [4000, "enough"]


# Messages: order and back-pressure


async def test_messages_are_handled_in_order_and_one_at_a_time(gateway: Gateway) -> None:
    chance = random.Random(7)
    async with watched(gateway) as (report, _), Client(f"{gateway.ws_url}/rules/{report}") as client:
        for number in range(50):
            await client.send({"do": "wait", "seconds": chance.uniform(0.0, 0.01), "number": number})
        answers = [await client.receive() for _ in range(50)]
    assert answers == [{"number": number, "inside": 1} for number in range(50)]


async def test_pings_are_answered_while_a_handler_is_at_work(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Client(f"{gateway.ws_url}/rules/{report}") as client:
        await client.send({"do": "hold", "at": report})
        assert await reports(watcher, 1) == [{"holds": report}]
        await client.send({"do": "echo"})  # waits for its turn, and the ping behind it does not
        async with asyncio.timeout(DEADLINE):
            await (await client.connection.ping())
        await watcher.send({"open": report})
        assert await client.receive() == {"do": "echo"}


async def test_a_slow_handler_stops_its_client_from_sending_and_no_other(gateway: Gateway) -> None:
    message = frame({"do": "count", "pad": "x" * 60_000})
    bound = 64 * 1024 * 1024  # what kernels may hold between two sockets, generously
    async with watched(gateway) as (report, watcher), Raw(gateway.port) as raw:
        await raw.send(upgrade(f"/rules/{report}") + frame({"do": "hold", "at": report}))
        await raw.opened()
        assert await reports(watcher, 1) == [{"holds": report}]
        whole = sent = 0
        # Nothing is taken for as long as another client gets two answers: it is blocked.
        idle_answers = 0
        while idle_answers < 2:
            assert whole * len(message) < bound, "the client was never stopped"
            taken = raw.send_nowait(message[sent:])
            sent += taken
            if sent == len(message):
                whole, sent = whole + 1, 0
            elif not taken:
                assert await watcher.ask(idle=idle_answers) == {"idle": idle_answers}
                idle_answers += 1
            else:
                idle_answers = 0
        assert whole > 0
        await watcher.send({"open": report})
        await raw.send(message[sent:] + frame({"do": "counted"}))
        answer = await raw.next_frame()
    assert answer is not None
    assert bytes(answer.data) == b'{"count":%d}' % (whole + 1)


async def test_a_client_with_too_much_unread_is_closed_with_1013_and_the_others_get_everything(
    gateway: Gateway,
) -> None:
    payload = "x" * 100_000
    async with watched(gateway) as (report, watcher), Raw(gateway.port, receive_buffer=4096) as raw:
        await raw.send(upgrade(f"/rules/{report}") + frame({"do": "join", "room": report}))
        async with Client(f"{gateway.ws_url}/rules/{report}") as client:
            await client.ask(do="join", room=report)
            for number in range(100):  # 10 MB: more than the outbox and the kernel hold
                # Each waits for the one before, so neither of the two who read is ever behind.
                await client.send({"do": "publish", "room": report, "message": [number, payload], "exclude": False})
                assert await client.receive() == [number, payload]
                assert await watcher.receive() == [number, payload]
            left = (await client.receive())["left"]
            assert (await watcher.receive())["left"] == left
    assert left == [1013, "slow consumer"]


async def test_publish_reaches_the_publisher_unless_excluded(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Client(f"{gateway.ws_url}/rules/{report}") as client:
        await client.ask(do="join", room=report)
        await client.send({"do": "publish", "room": report, "message": "for the others", "exclude": True})
        await client.send({"do": "publish", "room": report, "message": "for all", "exclude": False})
        assert await client.receive() == "for all"
        assert await reports(watcher, 2) == ["for the others", "for all"]


async def test_who_is_no_member_may_publish(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Client(f"{gateway.ws_url}/rules/{report}") as client:
        await client.send({"do": "publish", "room": report, "message": "from outside", "exclude": False})
        assert await reports(watcher, 1) == ["from outside"]


# Other styles


async def test_plain_functions_are_handlers_too(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher):
        async with Client(f"{gateway.ws_url}/plain/{report}") as client:
            for number in range(20):
                await client.send({"number": number})
            await client.send({"do": "set", "field": "name", "value": "Ada"})
            assert await client.ask(do="seen") == [
                *({"number": number} for number in range(20)),
                {"do": "set", "field": "name", "value": "Ada"},
                {"do": "seen"},
            ]
        assert await reports(watcher, 1) == [{"left": [1000, ""], "rooms": []}]


async def test_a_field_that_a_plain_function_wrote_is_stored_without_a_further_message(
    gateway: Gateway, redis: Redis
) -> None:
    async with watched(gateway) as (report, _), Client(f"{gateway.ws_url}/plain/{report}") as client:
        await client.send({"do": "set", "field": "name", "value": "Ada"})
        await wait_until(lambda: fields_of(redis, client) == {"name": "Ada"})


async def test_a_coroutine_handler_reads_its_messages_and_hears_of_the_end(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher):
        async with Client(f"{gateway.ws_url}/loop/{report}") as client:
            for number in range(40):  # more than may wait
                await client.send(number)
            assert [await client.receive() for _ in range(40)] == list(range(40))
        assert await reports(watcher, 2) == [{"loop": "over"}, {"left": [1000, ""]}]


async def test_a_coroutine_handler_that_returns_closes_with_1000(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher), Client(f"{gateway.ws_url}/loop/{report}") as client:
        await client.send({"do": "return"})
        assert await close_of(client.connection) == (1000, "")
        assert await reports(watcher, 1) == [{"left": [1000, ""]}]


async def test_a_coroutines_session_fields_are_written_at_each_step(gateway: Gateway, redis: Redis) -> None:
    async with watched(gateway) as (report, _), Client(f"{gateway.ws_url}/loop/{report}") as client:
        await client.send({"do": "set", "field": "step", "value": 1})
        assert await client.ask(next=True) == {"next": True}
        assert fields_of(redis, client) == {"step": 1}


# The handshake


async def test_a_refusal_in_on_handshake_is_an_http_answer_and_stores_nothing(gateway: Gateway, redis: Redis) -> None:
    before = set(redis.scan_iter("stickygw:session:*"))
    fields = [("X-Test", "seen")]
    answer = await exchange(gateway.port, upgrade("/rules/r?refuse=401&name=Ada%20L.", fields=fields))
    assert answer.status == 401
    assert answer.body == b"/rules/r 401 seen 127.0.0.1 Ada L.\n"
    assert answer.get("WWW-Authenticate") == 'Bearer realm="a, b"'
    assert answer.get("Connection") == "close"
    assert answer.cookie is None
    assert set(redis.scan_iter("stickygw:session:*")) == before


async def test_on_handshake_sees_the_visitors_session(gateway: Gateway, redis: Redis) -> None:
    async with watched(gateway) as (report, _):
        client = Client(f"{gateway.ws_url}/rules/{report}?name=Grace")
        async with client:
            assert fields_of(redis, client) == {"name": "Grace"}
        assert client.cookie is not None
        fields = [("X-Test", "seen"), ("Cookie", client.cookie)]
        answer = await exchange(gateway.port, upgrade("/rules/r?refuse=403", fields=fields))
    assert (answer.status, answer.body) == (403, b"/rules/r 403 seen 127.0.0.1 Grace\n")


async def test_an_on_handshake_that_raises_is_500_for_that_client_only(gateway: Gateway) -> None:
    answer = await exchange(gateway.port, upgrade("/rules/r?raise"))
    assert (answer.status, answer.body) == (500, b"internal error\n")
    await logged(gateway, "an opening failed", "RuntimeError: on purpose, in on_handshake")
    async with watched(gateway):
        pass


@pytest.mark.parametrize("path", ["/", "/rules", "/rules/", "/rules/a/b", "/Rules/a", "/x/rules/a", "/rules/a%2Fb/c"])
async def test_a_path_without_a_pattern_is_404_before_101(gateway: Gateway, path: str) -> None:
    answer = await exchange(gateway.port, upgrade(path))
    assert (answer.status, answer.cookie) == (404, None)


async def test_the_request_is_what_the_client_sent(gateway: Gateway) -> None:
    async with Client(f"{gateway.ws_url}/rules/a%20b?x=1&y=%C3%A4&x=2&empty=") as client:
        request = await client.ask(do="request")
    assert request == {
        "path": "/rules/a%20b",
        "query": {"x": "2", "y": "ä", "empty": ""},
        "parts": {"report": "a b"},
        "client": "127.0.0.1",
        "subprotocol": None,
    }


# Frames


async def test_a_message_that_the_codec_cannot_read_closes_with_1007(gateway: Gateway) -> None:
    async with watched(gateway) as (report, watcher):
        for path in ("rules", "plain", "loop"):
            async with Client(f"{gateway.ws_url}/{path}/{report}") as client:
                await client.connection.send('{"do": "echo"')
                assert (await close_of(client.connection))[0] == 1007
        lefts = [message["left"][0] for message in await reports(watcher, 4) if "left" in message]
    assert lefts == [1007, 1007, 1007]


async def test_text_that_is_not_utf_8_closes_with_1007(gateway: Gateway) -> None:
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade("/rules/r") + frame(b"\xff\xfe"))
        await raw.opened()
        assert closing(await raw.next_frame())[0] == 1007


async def test_compression_is_off_unless_it_is_switched_on(gateway: Gateway) -> None:
    fields = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]
    async with Raw(gateway.port) as raw:
        await raw.send(upgrade("/rules/r", fields=fields) + frame({"do": "echo"}))
        answer = await raw.opened()
        assert answer.get("Sec-WebSocket-Extensions") is None
        echoed = await raw.next_frame()
    assert echoed is not None
    assert bytes(echoed.data) == b'{"do":"echo"}'


# Sessions


def fields_of(redis: Redis, client: Client) -> dict[str, Any]:
    """What the store holds for a client's session."""
    stored: Any = redis.hgetall(key_of(client))
    own = {b"_v", b"_c"}
    return {name.decode(): msgpack.unpackb(packed) for name, packed in stored.items() if name not in own}


def key_of(client: Client) -> str:
    assert client.cookie is not None
    return f"stickygw:session:{{{client.cookie.split('.')[2]}}}"


async def test_a_field_is_in_the_store_before_the_next_message_is_handled(gateway: Gateway, redis: Redis) -> None:
    async with watched(gateway) as (report, _), Client(f"{gateway.ws_url}/rules/{report}") as client:
        await client.send({"do": "set", "field": "cart", "value": ["tea", 2]})
        await client.ask(do="echo")
        assert fields_of(redis, client) == {"cart": ["tea", 2]}
        ttl: Any = redis.ttl(key_of(client))
        assert 14 * 86_400 - 60 < ttl <= 14 * 86_400


async def test_nothing_is_stored_for_a_session_that_nobody_wrote_to(gateway: Gateway, redis: Redis) -> None:
    async with watched(gateway) as (report, watcher):
        client = Client(f"{gateway.ws_url}/rules/{report}")
        for _ in range(2):
            async with client:
                await client.ask(do="echo")
            await reports(watcher, 1)  # its end has been handled
        assert client.cookies_set == 1
        assert redis.exists(key_of(client)) == 0
