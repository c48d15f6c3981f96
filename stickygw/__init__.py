"""stickygw: a sticky-session WebSocket gateway cluster.

The names here are loaded when they are first used, so that ``import stickygw`` costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stickygw.apps.current import current
    from stickygw.apps.native.app import App
    from stickygw.apps.native.connection import Connection
    from stickygw.apps.native.request import Request
    from stickygw.apps.native.tick import Tick
    from stickygw.errors import (
        ConnectionClosed,
        OffloadFull,
        OutsideGateway,
        Refuse,
        SessionEnded,
        SessionUnavailable,
        StickygwError,
        TellError,
    )
    from stickygw.sessions.session import Session

__version__ = "0.1.0"

__all__ = [
    "App",
    "Connection",
    "ConnectionClosed",
    "OffloadFull",
    "OutsideGateway",
    "Refuse",
    "Request",
    "Session",
    "SessionEnded",
    "SessionUnavailable",
    "StickygwError",
    "TellError",
    "Tick",
    "current",
]

_HOMES = {
    "App": "stickygw.apps.native.app",
    "Connection": "stickygw.apps.native.connection",
    "ConnectionClosed": "stickygw.errors",
    "OffloadFull": "stickygw.errors",
    "OutsideGateway": "stickygw.errors",
    "Refuse": "stickygw.errors",
    "Request": "stickygw.apps.native.request",
    "Session": "stickygw.sessions.session",
    "SessionEnded": "stickygw.errors",
    "SessionUnavailable": "stickygw.errors",
    "StickygwError": "stickygw.errors",
    "TellError": "stickygw.errors",
    "Tick": "stickygw.apps.native.tick",
    "current": "stickygw.apps.current",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stickygw' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
