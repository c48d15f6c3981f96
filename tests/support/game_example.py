"""examples/game: its modules can be imported once this one has been, and `fresh_app` is the application."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from support.gateway import ROOT

GAME_FOLDER = ROOT / "examples" / "game"
GAME = f"{GAME_FOLDER / 'app.py'}:app"
BY_MATCH = ("--key", "path:/match/{id}", "--key", "cookie", "--set", "access_log=false")

PATIENT = ("--set", "slot_wait=30")
"""However long a killed worker's successor takes to start here, its matches wait for it."""
"""How the game is routed."""

sys.path.append(str(GAME_FOLDER))
bots = importlib.import_module("bots")


def fresh_app() -> ModuleType:
    """The module app.py, new: with no matches. It is not called "app", as other examples are."""
    spec = importlib.util.spec_from_file_location("game_app", GAME_FOLDER / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
