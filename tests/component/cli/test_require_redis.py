from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.valkey import ValkeyServer

from stickygw.cli.store import ANSWER_SECONDS, require_redis
from stickygw.errors import StoreError

DRIP_SECONDS = 0.2


@pytest.fixture
def dripping_port() -> Iterator[int]:
    """A port whose listener sends one byte at a time and never a whole answer."""
    is_over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not is_over.wait(DRIP_SECONDS):
                try:
                    connection.send(b"+")
                except OSError:
                    return  # the client has gone

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener])
        thread.start()
        yield listener.getsockname()[1]
        is_over.set()
        thread.join(timeout=10)


def test_a_redis_that_answers_is_accepted(valkey: ValkeyServer) -> None:
    require_redis(valkey.url, origin="flag --redis")


def test_a_redis_that_refuses_the_password_says_so_without_it(valkey: ValkeyServer) -> None:
    url = valkey.url.replace("unix://", "unix://nobody:hunter2@")
    with pytest.raises(StoreError, match="password") as caught:
        require_redis(url, origin="flag --redis")
    assert "hunter2" not in str(caught.value)


def test_a_redis_that_never_completes_an_answer_is_given_up_in_time(dripping_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(StoreError, match="no answer within 3 s"):
        require_redis(f"redis://127.0.0.1:{dripping_port}", origin="flag --redis")
    assert time.monotonic() - start < 10 * ANSWER_SECONDS


def test_an_option_in_the_url_that_redis_py_does_not_know_is_an_error() -> None:
    with pytest.raises(StoreError, match="tiemout"):
        require_redis("redis://127.0.0.1:1?tiemout=3", origin="flag --redis")
