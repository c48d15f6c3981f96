"""The command's end of the control socket, beside gateways that are silent, slow or somebody else's."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stickygw.errors import CommandError, ExitCode, NoGatewayError
from stickygw.ipc.control_client import ControlClient
from stickygw.wire.control import Failure, Progress, Result, encode

NOBODY = 65534


@pytest.fixture
def listener(short_dir: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "control"))
        listener.listen()
        yield listener


@pytest.fixture
def client(listener: socket.socket, short_dir: Path) -> Iterator[ControlClient]:
    with ControlClient(short_dir / "control") as client:
        yield client


@pytest.fixture
def gateway(client: ControlClient, listener: socket.socket) -> Iterator[socket.socket]:
    """The other end of `client`."""
    accepted, _ = listener.accept()
    with accepted:
        yield accepted


def test_a_gateway_that_does_not_answer_is_given_up(client: ControlClient, gateway: socket.socket) -> None:
    with pytest.raises(CommandError, match="the gateway does not answer"):
        client.request("status", timeout=0.05)
    assert client.is_closed


def test_an_error_keeps_its_code_and_leaves_the_connection_open(client: ControlClient, gateway: socket.socket) -> None:
    gateway.sendall(encode(Failure(ExitCode.TARGET, "no module")) + encode(Result({"message": "done"})))
    with pytest.raises(CommandError, match="no module") as caught:
        client.request("reload")
    assert caught.value.exit_code is ExitCode.TARGET
    assert not client.is_closed


def test_replies_come_without_waiting_however_they_are_cut(client: ControlClient, gateway: socket.socket) -> None:
    client.send("reload")
    assert list(client.replies_nowait()) == []
    progress, result = encode(Progress("slot 0: ready")), encode(Result({"message": "done"}))
    gateway.sendall(progress + result[:-1])
    assert select.select([client], [], [], 5)[0] == [client]
    assert list(client.replies_nowait()) == [Progress("slot 0: ready")]
    gateway.sendall(result[-1:])
    assert select.select([client], [], [], 5)[0] == [client]
    assert list(client.replies_nowait()) == [Result({"message": "done"})]


def test_what_a_gateway_said_before_it_closed_is_heard_though_nothing_can_be_sent(
    client: ControlClient, gateway: socket.socket
) -> None:
    gateway.sendall(encode(Failure(ExitCode.COMMAND, "too many")))
    gateway.close()
    with pytest.raises(CommandError, match="too many"):
        client.request("status")


def test_it_knows_the_gateways_process(client: ControlClient) -> None:
    assert client.pid == os.getpid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as somebody else")
def test_a_socket_that_another_user_serves_gets_no_word(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "control"))
        os.seteuid(NOBODY)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(NoGatewayError, match=f"is served by user {NOBODY}, not by 0"):
            ControlClient(short_dir / "control")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b""
