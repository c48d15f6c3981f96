"""May a page of this origin open a WebSocket here? (RFC 6454; RFC 6455 §10.2; cross-site WebSocket hijacking)"""

from __future__ import annotations

import re
from collections.abc import Sequence

SAME_HOST = "same-host"
ANY = "*"

_ORIGIN = re.compile(r"(https?|wss?)://([^/?#@\s]+)", re.ASCII)
_DEFAULT_PORTS = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}


def is_origin_allowed(origin: str | None, host: str, allowed: Sequence[str]) -> bool:
    """Whether `allowed` admits `origin`, a request's Origin field, on a request whose Host field is `host`.

    "same-host" admits pages that this very host and port served. A client without Origin is no browser, and cookies of
    a user's browser are out of its reach: it is admitted.
    """
    if origin is None or ANY in allowed or origin in allowed:
        return True
    if SAME_HOST not in allowed:
        return False
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None:
        return False
    default = _DEFAULT_PORTS[match[1]]
    return match[2].removesuffix(default) == host.lower().removesuffix(default)
