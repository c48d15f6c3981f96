"""Who sent a further request on a connection that is kept alive.

Behind a proxy that may be another client than before, so nothing of the first request holds: neither the client's
address nor its session.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from stickygw.config.settings import Settings
from stickygw.connections.transport import SocketTransport
from stickygw.routing.cookie import CookieClaim, CookieKeys, claim_of
from stickygw.routing.forwarded import TrustedProxies
from stickygw.routing.request_head import Head
from stickygw.types import Slot
from stickygw.wire.link import Offer

if TYPE_CHECKING:
    from stickygw.apps.native.runtime import Identity


class FurtherOffers:
    """Finds for a further request what the primary found for the first one, by the same rules."""

    def __init__(self, settings: Settings, keys: CookieKeys, identity: Identity) -> None:
        self._trusted = TrustedProxies(settings.trusted_proxies)
        self._is_proxied = bool(settings.trusted_proxies)
        self._cookie_name = settings.cookie.name
        self._lifetime = settings.session.lifetime
        self._reads_token = settings.session.token
        self._keys = keys
        self._identity = identity

    def of(self, offer: Offer, head: Head, socket: SocketTransport) -> Offer:
        """The offer of the request `head`, which came over `socket`, with which `offer` came."""
        is_nameless = b"cookie" not in head.first and not self._reads_token
        if not self._is_proxied and offer.session is None and is_nameless:
            return offer  # as nameless as the first one
        claim = claim_of(
            head,
            name=self._cookie_name,
            keys=self._keys,
            now=time.time(),
            lifetime=self._lifetime,
            reads_token=self._reads_token,
        )
        host, port, is_secure = offer.host, offer.port, offer.is_secure
        if self._is_proxied:
            # With a port, the host is the peer's, or the one that its PROXY header named: X-Forwarded-For tells none.
            hop = offer.host if offer.port else socket.peer_host
            host, is_secure = self._trusted.client_of(head, hop)
            port = offer.port if host == offer.host else 0
        return replace(
            offer,
            session=None if claim is None else claim.session,
            issued=0 if claim is None else claim.issued,
            cookie_slot=self._cookie_slot(claim),
            host=host,
            port=port,
            is_secure=is_secure,
        )

    def _cookie_slot(self, claim: CookieClaim | None) -> Slot | None:
        """What a cookie is to name: never another slot than a good one does."""
        if claim is None:
            return self._identity.slot
        return claim.slot if claim.is_by_older_key and claim.gateway == self._identity.gateway else None
