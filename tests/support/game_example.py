"""examples/game: its modules can be imported once this one has been, and `fresh_app` is the application."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from stickygw.testing.app_client import TestConnection
from support.gateway import ROOT

GAME_FOLDER = ROOT / "examples" / "game"
GAME = f"{GAME_FOLDER / 'app.py'}:app"
BY_MATCH = ("--key", "path:/match/{id}", "--key", "cookie", "--set", "max_message=1024", "--set", "access_log=false")
"""How the game is routed, and what else its run lines say."""

PATIENT = ("--set", "slot_wait=30")
"""However long a killed worker's successor takes to start here, its matches wait for it."""

sys.path.append(str(GAME_FOLDER))
bots = importlib.import_module("bots")


async def next_of(kind: str, connection: TestConnection) -> dict[str, Any]:
    """The next message of that type; others are skipped."""
    while (message := await connection.receive())["type"] != kind:
        pass
    return message


def fresh_app() -> ModuleType:
    """The module app.py, new: with no matches. It is not called "app", as other examples are."""
    spec = importlib.util.spec_from_file_location("game_app", GAME_FOLDER / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
