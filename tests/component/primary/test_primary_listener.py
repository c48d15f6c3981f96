"""Addresses are bound as they are named, or refused by name; nothing of another program's is taken."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from stickygw.errors import BindError
from stickygw.primary.listener import Listener, adopted, bind


def closed_after(listeners: list[Listener]) -> list[str]:
    urls = [listener.url for listener in listeners]
    for listener in listeners:
        listener.close()
    return urls


def test_urls_have_the_real_ports_in_the_order_of_the_addresses():
    listeners = bind(["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"])
    ports = [listener.port for listener in listeners]
    assert 0 not in ports
    assert closed_after(listeners) == [
        f"http://127.0.0.1:{ports[0]}",
        f"http://localhost:{ports[1]}",
        f"http://0.0.0.0:{ports[2]}",
    ]


def test_one_port_can_be_bound_on_both_families():
    [first] = bind(["127.0.0.1:0"])
    port = first.port
    assert closed_after([first, *bind([f"[::1]:{port}"])])[1] == f"http://localhost:{port}"


def test_a_taken_port_is_an_error_that_names_the_address_and_leaves_nothing_bound():
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        free_port = free.getsockname()[1]
        free.close()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"{address}: Address already in use"):
            bind([f"127.0.0.1:{free_port}", address])
        closed_after(bind([f"127.0.0.1:{free_port}"]))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", "::1:80", "127.0.0.1:70000", ":80", "unix:x"])
def test_what_is_no_address_is_an_error_that_names_it(address: str):
    with pytest.raises(BindError, match="cannot listen on"):
        bind([address])


def test_a_unix_socket_is_made_and_removed(short_dir: Path):
    path = short_dir / "gateway"
    listeners = bind([f"unix:{path}"])
    assert path.is_socket()
    assert closed_after(listeners) == [f"unix:{path}"]
    assert not path.exists()


def test_an_adopted_one_leaves_the_file_until_the_workers_are_ours(short_dir: Path):
    [first] = bind([f"unix:{short_dir}/gateway"])
    assert first.path is not None
    for is_ours in (False, True):
        again = adopted(first.sock.dup())
        assert (again.url, again.keeps_file) == (first.url, True)
        again.keeps_file = not is_ours
        again.close()
        assert first.path.exists() is not is_ours
    first.close()


def test_a_socket_can_be_reached_unless_its_file_is_gone_or_another(short_dir: Path):
    [tcp, unix] = bind(["127.0.0.1:0", f"unix:{short_dir}/gateway"])
    assert unix.path is not None
    assert tcp.is_reachable
    assert unix.is_reachable
    unix.path.unlink()
    assert not unix.is_reachable
    again = adopted(unix.sock.dup())
    unix.path.touch()
    assert not unix.is_reachable
    assert not again.is_reachable
    closed_after([tcp, unix, again])
    assert unix.path.exists()


def test_a_unix_socket_that_a_dead_process_left_is_replaced(short_dir: Path):
    path = short_dir / "gateway"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    closed_after(bind([f"unix:{path}"]))


def test_a_unix_socket_where_somebody_listens_is_refused_and_left_alone(short_dir: Path):
    path = short_dir / "gateway"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(BindError, match="another program listens there"):
            bind([f"unix:{path}"])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(short_dir: Path):
    path = short_dir / "precious"
    path.write_text("data")
    with pytest.raises(BindError, match="no socket"):
        bind([f"unix:{path}"])
    assert path.read_text() == "data"


def test_a_unix_socket_that_another_has_replaced_is_left_to_it(short_dir: Path):
    path = short_dir / "gateway"
    [first] = bind([f"unix:{path}"])
    path.unlink()
    [second] = bind([f"unix:{path}"])
    first.close()
    assert path.is_socket()
    second.close()


def test_accepted_tcp_sockets_send_small_messages_at_once():
    [listener] = bind(["127.0.0.1:0"])
    with socket.create_connection(listener.sock.getsockname()) as client:
        client.sendall(b"G")  # before its first byte it is not shown
        listener.sock.settimeout(10)
        accepted, _ = listener.sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    listener.close()
