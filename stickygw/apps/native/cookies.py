"""When the gateway's own cookie is sent, and what it says. Its form is `stickygw.routing.cookie`'s."""

from __future__ import annotations

import time

from stickygw.apps.native.runtime import Runtime
from stickygw.routing.cookie import CookieClaim
from stickygw.routing.set_cookie import CookieOptions, CookieWriter
from stickygw.types import SessionId
from stickygw.wire.link import Offer


class CookieJar:
    """Makes the Set-Cookie values of one worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._identity = runtime.identity
        cookie = runtime.settings.cookie
        options = CookieOptions(cookie.name, cookie.domain, cookie.path, cookie.same_site, cookie.partitioned)
        self._writer = CookieWriter(runtime.cookie_keys, options, runtime.settings.session.lifetime)

    def due(self, offer: Offer, session: SessionId) -> str | None:
        """The Set-Cookie value that the answer to `offer` carries for `session`, or None: the client's own is right.

        The primary decided whether the client's hint may change (`Offer.cookie_slot`); a client without a proven id
        always gets one, and one whose session has ended, for another.
        """
        is_known = session == offer.session
        if is_known and offer.cookie_slot is None:
            return None
        now = int(time.time())
        slot = self._identity.slot if offer.cookie_slot is None else offer.cookie_slot
        # A cookie that is written anew keeps its first date: the lifetime is absolute.
        claim = CookieClaim(session, self._identity.gateway, slot, offer.issued if is_known else now)
        return self._writer.written(claim, now=now, is_secure=offer.is_secure)

    def forgotten(self, offer: Offer) -> str:
        """The Set-Cookie value that makes the client drop its cookie."""
        return self._writer.forgotten(is_secure=offer.is_secure)
