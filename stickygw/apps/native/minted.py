"""Ids that say which gateway has minted them: ``GATEWAYID.RANDOM``.

They are not signed: whoever can write a URL can make one up. One says where to look, not that there is anything.
"""

from __future__ import annotations

import re
import secrets

from stickygw.types import GatewayId

RANDOM_BYTES = 16

_MINTED = re.compile(r"([0-9a-f]{8})\.[A-Za-z0-9_-]{22}")


def mint(gateway: GatewayId) -> str:
    """A new id of `gateway`: 31 characters that need no quoting in a URL, 128 bits of them random."""
    return f"{gateway}.{secrets.token_urlsafe(RANDOM_BYTES)}"


def minter_of(id: str) -> GatewayId | None:
    """The gateway that has minted `id`; None: it has no such form. `id` is often what a client has sent."""
    match = _MINTED.fullmatch(id)
    return GatewayId(match[1]) if match else None
