"""The access line: what one connection was, told once, at its end.

No header, query, cookie or session id gets into it: they hold credentials.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from stickygw.observability.formats import fields
from stickygw.types import Slot

log = logging.getLogger("stickygw.access")

MAX_PATH_CHARACTERS = 256
"""More of a path is not logged."""


def is_access_logged() -> bool:
    """Whether an access line would be written now."""
    return log.isEnabledFor(logging.INFO)


def log_access(
    *,
    client: str,
    reason: str,
    kind: Literal["websocket", "http", "refused"],
    status: int,
    port: int | None = None,
    slot: Slot | None = None,
    method: str | None = None,
    path: str | None = None,
    **more: Any,
) -> None:
    """Write one connection's line; what is None is left out.

    `client` is its host, "" on a Unix socket; `reason` the routing decision's; `status` the HTTP answer's, 101 for a
    WebSocket, 0 if there was none.
    """
    if path is not None and len(path) > MAX_PATH_CHARACTERS:
        path = path[:MAX_PATH_CHARACTERS] + "..."
    line = fields(
        client=client or "unix",
        port=port,
        slot=slot,
        reason=reason,
        kind=kind,
        method=method,
        path=path,
        status=status,
        **more,
    )
    log.info("access", extra=line)
