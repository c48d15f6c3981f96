"""Where `make demo` listens, and what it tells people to open."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

from stickygw.errors import BindError
from stickygw.primary.listener import bind

DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo.py"


@pytest.fixture
def demo() -> ModuleType:
    """examples/demo.py as a module."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_taken_port_is_passed_over(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(demo, "FIRST_PORT", taken)
        assert demo.free_port(["127.0.0.1"]) > taken
    assert demo.can_bind("127.0.0.1", taken)


def test_no_free_port_is_one_sentence(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(demo, "FIRST_PORT", server.getsockname()[1])
        monkeypatch.setattr(demo, "PORTS_TRIED", 1)
        with pytest.raises(SystemExit, match="choose one with BIND="):
            demo.free_port(["127.0.0.1"])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_this_machine_has_two_visitors(demo: ModuleType, host: str) -> None:
    assert demo.visitors(f"{host}:8000") == ["http://127.0.0.1:8000", "http://localhost:8000"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "[::1]", "[::]"])
def test_every_address_that_is_shown_answers(demo: ModuleType, host: str) -> None:
    try:
        (listener,) = bind([f"{host}:0"])
    except BindError as error:
        pytest.skip(str(error))  # many containers have no IPv6
    try:
        shown = demo.visitors(f"{host}:{listener.port}")
        assert shown
        for address in shown:
            url = urlsplit(address)
            socket.create_connection((url.hostname, url.port), timeout=5).close()
    finally:
        listener.close()


@pytest.mark.parametrize("host", ["[::1]", "[::]"])
def test_where_only_ipv6_is_bound_no_ipv4_address_is_shown(demo: ModuleType, host: str) -> None:
    shown = demo.visitors(f"{host}:8000")
    assert "http://[::1]:8000" in shown
    assert "http://127.0.0.1:8000" not in shown


def test_localhost_is_shown_where_it_means_the_bound_address(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"localhost": ["::1", "127.0.0.1"]}
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> list[Any]:
        return [answer for name in known.get(host, [host]) for answer in real(name, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert demo.visitors("[::]:80") == ["http://localhost:80", "http://[::1]:80"]
    assert demo.visitors("localhost:80") == ["http://localhost:80", "http://[::1]:80"]  # its first address is bound
    known["localhost"] = ["127.0.0.1"]
    assert demo.visitors("[::1]:80") == ["http://[::1]:80"]


def test_an_unknown_host_shows_nothing(demo: ModuleType) -> None:
    assert demo.visitors("no such host:8000") == []


def test_another_address_has_one_visitor(demo: ModuleType) -> None:
    assert demo.visitors("192.0.2.1:8000") == ["http://192.0.2.1:8000"]


def test_a_port_that_the_system_chooses_is_told_by_the_gateway(demo: ModuleType) -> None:
    assert demo.visitors("127.0.0.1:0") == []
