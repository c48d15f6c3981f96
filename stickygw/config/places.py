"""Where a gateway and its commands meet when nobody says where."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

CONTROL_SOCKET = "control"
"""The control socket's name in the runtime directory."""

WORKERS_SOCKET = "workers"
"""Where workers whose primary is gone find the next one, likewise."""

ROLL = "workers.json"
"""The list of the workers that live, likewise."""


def default_runtime_base() -> Path:
    """The folder of this user's default runtime directories, one for each port."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"stickygw-{os.geteuid()}"
