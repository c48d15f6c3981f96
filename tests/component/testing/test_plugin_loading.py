"""The pytest plugin is loaded in every test run of an environment that has stickygw: it must cost and need little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NEW_MODULES = """
import sys
import pytest, pytest_asyncio
before = set(sys.modules)
import stickygw.testing.pytest_plugin
print(*sorted(set(sys.modules) - before))
"""
WITHOUT_PYTEST_ASYNCIO = """
import importlib.metadata, sys
sys.modules["pytest_asyncio"] = None  # importing it is a ModuleNotFoundError
all_distributions = importlib.metadata.distributions
importlib.metadata.distributions = lambda: [d for d in all_distributions() if d.metadata["Name"] != "pytest-asyncio"]
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_plugin_imports_nothing_but_itself(tmp_path: Path) -> None:
    done = python(NEW_MODULES, cwd=tmp_path)
    assert done.stdout.split() == ["stickygw", "stickygw.testing", "stickygw.testing.pytest_plugin"], done.stderr


def test_without_pytest_asyncio_other_peoples_tests_run_and_the_gateway_is_there(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_plain.py").write_text("def test_plain(gateway): assert callable(gateway)\n")
    done = python(WITHOUT_PYTEST_ASYNCIO, "test_plain.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_without_pytest_asyncio_there_is_no_app_client(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_app.py").write_text("def test_app(app_client): ...\n")
    done = python(WITHOUT_PYTEST_ASYNCIO, "test_app.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "fixture 'app_client' not found" in done.stdout


@pytest.mark.parametrize("first", ["", "import stickygw.testing.gateway\n"])
def test_every_public_name_is_there_whatever_was_imported_before(tmp_path: Path, first: str) -> None:
    names = "import stickygw.testing as t\nprint(all(callable(getattr(t, name)) for name in t.__all__))"
    done = python(first + names, cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr
