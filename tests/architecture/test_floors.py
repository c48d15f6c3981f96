"""The floors of ARCHITECTURE.md hold, in the source and in the processes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = modules_after("import stickygw")
    assert not loaded & {"redis", "uvicorn", "websockets", "pydantic", "asyncio", "msgpack"}


@pytest.mark.parametrize("module", ["redis", "uvicorn", "websockets", "click", "rich", "stickygw.apps"])
def test_the_primary_does_not_load(module: str) -> None:
    assert module not in modules_after("import stickygw.primary.__main__, stickygw.primary.main")


def test_public_names_are_there() -> None:
    import stickygw

    for name in stickygw.__all__:
        assert getattr(stickygw, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = stickygw.Nothing
