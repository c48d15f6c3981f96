"""Where `make demo` listens, and what it tells people to open."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "[::1]", "[::]"])
def test_this_machine_has_two_visitors(demo: ModuleType, host: str) -> None:
    assert demo.visitors(f"{host}:8000") == ["http://127.0.0.1:8000", "http://localhost:8000"]


def test_another_address_has_one_visitor(demo: ModuleType) -> None:
    assert demo.visitors("192.0.2.1:8000") == ["http://192.0.2.1:8000"]


def test_a_port_that_the_system_chooses_is_told_by_the_gateway(demo: ModuleType) -> None:
    assert demo.visitors("127.0.0.1:0") == []
