"""When the gateway's own cookie is sent, and what it says. Its form is `stickygw.routing.cookie`'s."""

from __future__ import annotations

import time

from stickygw.apps.native.runtime import Runtime
from stickygw.routing.cookie import CookieClaim, set_cookie
from stickygw.types import SessionId
from stickygw.wire.link import Offer


class CookieJar:
    """Makes the Set-Cookie values of one worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._identity = runtime.identity
        self._keys = runtime.cookie_keys
        self._settings = runtime.settings

    @staticmethod
    def is_right(offer: Offer) -> bool:
        """Whether the client's own cookie is as it should be."""
        return offer.session is not None and not offer.sets_cookie

    def due(self, offer: Offer, session: SessionId) -> str | None:
        """The Set-Cookie value that the answer to `offer` carries for `session`, or None: the client's own is right.

        The primary decided whether the client's hint may change (`Offer.sets_cookie`); a client without a proven id
        always gets one.
        """
        if self.is_right(offer):
            return None
        now = int(time.time())
        # A cookie that is written anew keeps its first date: the lifetime is absolute.
        issued = offer.issued if offer.session is not None else now
        claim = CookieClaim(session, self._identity.gateway, self._identity.slot, issued)
        return set_cookie(
            self._settings.cookie.name,
            self._keys.sign(claim),
            max_age=max(0, self._settings.session.lifetime - (now - issued)),
            same_site=self._settings.cookie.same_site,
            is_secure=offer.is_secure,
        )
