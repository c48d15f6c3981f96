"""A publisher says when the store did not take a message, or perhaps did; and it never sends one twice."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from redis.asyncio import Redis
from support.publishers import KINDS, SECRET, Listener
from support.valkey import ValkeyServer
from support.waiting import wait_until

from stickygw.errors import PublishError, RoomNameError, StickygwError
from stickygw.publisher import AsyncPublisher, Publisher

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
async def test_without_a_store_it_is_certain_that_nothing_went_out(kind: Any) -> None:
    publisher = kind("redis://:sesame@127.0.0.1:1/0", secret=SECRET)
    with pytest.raises(PublishError, match="not published") as caught:
        await publisher.publish("room", "lost")
    assert not caught.value.is_uncertain
    assert isinstance(caught.value, StickygwError)
    assert "sesame" not in str(caught.value)
    await publisher.close()


@kinds
async def test_a_store_that_does_not_answer_leaves_it_uncertain_and_gets_it_once(
    kind: Any, own_valkey: ValkeyServer
) -> None:
    worker = Listener(own_valkey.url, "p", SECRET)
    await worker.hear("room")
    publisher = kind(own_valkey.url, secret=SECRET, prefix="p", timeout=0.3)
    await publisher.publish("room", "1")
    own_valkey.pause()
    with pytest.raises(PublishError, match="may be published or not") as caught:
        await publisher.publish("room", "2")
    assert caught.value.is_uncertain
    own_valkey.resume()
    await publisher.publish("room", "3")
    await wait_until(lambda: worker.payloads[-1:] == [b"3"])
    assert worker.payloads in ([b"1", b"2", b"3"], [b"1", b"3"])
    await publisher.close()
    await worker.bridge.stop()


@kinds
async def test_a_connection_that_ended_while_idle_is_replaced_and_nothing_is_lost(
    kind: Any, own_valkey: ValkeyServer
) -> None:
    publisher = kind(own_valkey.url + "?protocol=3&retry_on_timeout=yes", secret=SECRET, prefix="p")
    await publisher.publish("room", "1")
    await asyncio.to_thread(own_valkey.stop)  # so that the event loop can hear of it
    with pytest.raises(PublishError) as caught:
        await publisher.publish("room", "nowhere")
    assert not caught.value.is_uncertain
    own_valkey.start()
    worker = Listener(own_valkey.url, "p", SECRET)
    await worker.hear("room")
    await publisher.publish("room", "2")
    await publisher.publish("room", "3")
    await wait_until(lambda: worker.payloads == [b"2", b"3"])
    assert worker.gaps == []
    await publisher.close()
    await worker.bridge.stop()


@kinds
async def test_what_an_acl_forbids_is_an_error_and_the_next_call_goes_on(kind: Any, own_valkey: ValkeyServer) -> None:
    async with Redis.from_url(own_valkey.url) as admin:
        await admin.acl_setuser(  # type: ignore[no-untyped-call]
            "poster", enabled=True, passwords=["+sesame"], commands=["+publish"], channels=["p:room:open"], keys=[]
        )
    publisher = kind(own_valkey.url + "?username=poster&password=sesame", secret=SECRET, prefix="p")
    with pytest.raises(PublishError, match="refused 1 of 2") as caught:
        await publisher.publish(["open", "closed"], "x")
    assert caught.value.is_uncertain  # who publishes it again doubles it in one of them
    assert "sesame" not in str(caught.value)
    for rooms, refused in (("closed", "refused it"), (["closed", "locked"], "refused 2 of 2")):
        with pytest.raises(PublishError, match=refused) as caught:
            await publisher.publish(rooms, "x")
        assert not caught.value.is_uncertain
    await publisher.publish("open", "y")
    await publisher.close()


@kinds
@pytest.mark.parametrize(
    ("method", "arguments", "options", "error"),
    [
        ("publish", ("", "x"), {}, RoomNameError),
        ("publish", (["good", "bad\n"], "x"), {}, RoomNameError),
        ("send_to_user", ("u" * 201, "x"), {}, RoomNameError),
        ("send_to_session", ("s" * 300, "x"), {}, ValueError),
        ("send_to_session", ("\ud800", "x"), {}, ValueError),
        ("send_to_session", ("", "x"), {}, ValueError),
        ("send_to_session", (None, "x"), {}, ValueError),
        ("disconnect", (), {"session": ""}, ValueError),
        ("disconnect", (), {"connection": ""}, ValueError),
        ("disconnect", (), {"connection": "c" * 300}, ValueError),
        ("disconnect", (), {"user": ""}, RoomNameError),
        ("publish", ("room", {"not": "text"}), {}, TypeError),
        ("disconnect", (), {}, ValueError),
        ("disconnect", (), {"user": "ada", "session": "5e55"}, ValueError),
        ("disconnect", (), {"user": "ada", "code": 1006}, ValueError),
        ("disconnect", (), {"user": "ada", "reason": "r" * 124}, ValueError),
    ],
)
async def test_what_nobody_can_send_is_refused_without_a_store(
    kind: Any, method: str, arguments: Any, options: Any, error: type[Exception]
) -> None:
    publisher = kind("redis://127.0.0.1:1/0", secret=SECRET)
    with pytest.raises(error):
        await getattr(publisher, method)(*arguments, **options)
    await publisher.close()


@kinds
def test_another_codec_is_no_codec(kind: Any) -> None:
    with pytest.raises(ValueError, match="codec is None"):
        kind("redis://127.0.0.1:1/0", codec="xml")


@kinds
@pytest.mark.parametrize("secret", ["", b"", ",", "[]", "under 32 bytes", b"u" * 31, "short, " + SECRET, " " * 40])
def test_a_secret_that_no_gateway_takes_is_none(kind: Any, secret: str | bytes) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes") as caught:
        kind("redis://127.0.0.1:1/0", secret=secret)
    assert "under" not in str(caught.value)


@pytest.mark.parametrize("kind", [Publisher, AsyncPublisher])
async def test_a_connection_goes_back_whatever_happens(kind: Any, own_valkey: ValkeyServer) -> None:
    publisher = kind(own_valkey.url, secret=SECRET)

    async def publish() -> None:
        published = publisher.publish("room", "x")
        if published is not None:
            await published

    commands, publisher._sender.commands = publisher._sender.commands, lambda parts: 1 / 0
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await publish()
    assert not publisher._pool._in_use_connections
    publisher._sender.commands = commands
    await publish()
    closed = publisher.close()
    if closed is not None:
        await closed


async def test_of_two_threads_at_a_store_that_hangs_one_may_have_sent_something(own_valkey: ValkeyServer) -> None:
    publisher = Publisher(own_valkey.url, secret=SECRET, timeout=0.5)
    publisher.publish("room", "1")
    own_valkey.pause()
    errors: list[PublishError] = []

    def publish() -> None:
        with pytest.raises(PublishError) as caught:
            publisher.publish("room", "2")
        errors.append(caught.value)

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join(30) for thread in threads])
    assert sorted(error.is_uncertain for error in errors) == [False, True]
    own_valkey.resume()
    publisher.close()
