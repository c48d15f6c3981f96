"""When the gateway's own cookie is sent, and what it says. Its form is `stickygw.routing.cookie`'s."""

from __future__ import annotations

import time

from stickygw.apps.native.runtime import Runtime
from stickygw.routing.cookie import CookieClaim
from stickygw.routing.set_cookie import CookieOptions
from stickygw.types import SessionId
from stickygw.wire.link import Offer


class CookieJar:
    """Makes the Set-Cookie values of one worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._identity = runtime.identity
        self._keys = runtime.cookie_keys
        self._lifetime = runtime.settings.session.lifetime
        cookie = runtime.settings.cookie
        self._options = CookieOptions(cookie.name, cookie.domain, cookie.path, cookie.same_site, cookie.partitioned)

    def due(self, offer: Offer, session: SessionId) -> str | None:
        """The Set-Cookie value that the answer to `offer` carries for `session`, or None: the client's own is right.

        The primary decided whether the client's hint may change (`Offer.cookie_slot`); a client without a proven id
        always gets one, and one whose session has ended, for another.
        """
        is_known = session == offer.session
        if is_known and offer.cookie_slot is None:
            return None
        now = int(time.time())
        # A cookie that is written anew keeps its first date: the lifetime is absolute.
        issued = offer.issued if is_known else now
        slot = self._identity.slot if offer.cookie_slot is None else offer.cookie_slot
        claim = CookieClaim(session, self._identity.gateway, slot, issued)
        # One of the future, by a clock that was set back, lives no longer than others.
        left = min(self._lifetime, max(0, self._lifetime - (now - issued)))
        return self._options.set_cookie(self._keys.sign(claim), max_age=left, is_secure=offer.is_secure)
