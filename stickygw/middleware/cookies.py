"""The session's cookie in the messages of ASGI: read from a scope, written into the head of an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from stickygw.routing.cookie import CookieClaim, CookieKeys, cookie_values, newest_claim
from stickygw.routing.set_cookie import CookieOptions, CookieWriter, is_private, is_public
from stickygw.sessions.visit import Visit
from stickygw.types import GatewayId, Slot

Fields = list[tuple[bytes, bytes]]

NO_GATEWAY = GatewayId("00000000")
"""What stands in the place of a gateway's id: a gateway with the same secret takes its cookie for another's."""


class Cookies:
    """Reads and writes the cookies of an application without a gateway; in the form that a gateway's have.

    `now` gives Unix seconds. `is_secure`: whether every client's side is TLS; None: as the request's scheme says.
    """

    def __init__(
        self,
        keys: CookieKeys,
        options: CookieOptions,
        lifetime: int,
        *,
        is_secure: bool | None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = options.name.encode("ascii")
        self._keys = keys
        self._lifetime = lifetime
        self._writer = CookieWriter(keys, options, lifetime)
        self._is_secure = is_secure
        self._now = now

    def proved(self, scope: dict[str, Any]) -> CookieClaim | None:
        """What the cookies of a request prove: see `stickygw.routing.cookie.claim_of`."""
        values = cookie_values(scope["headers"], self._name)
        return newest_claim(values, keys=self._keys, now=self._now(), lifetime=self._lifetime)

    def due(self, scope: dict[str, Any], claim: CookieClaim | None, visit: Visit, *, is_opening: bool) -> str | None:
        """The Set-Cookie value for the answer to a client that has proved `claim`, or None: it needs none.

        One is given to each new WebSocket (`is_opening`), whose session may be written to when no answer can tell of
        it any more, and where the session was used; one by an older key is written anew, with its first date.
        """
        is_secure = scope.get("scheme") in ("https", "wss") if self._is_secure is None else self._is_secure
        if visit.has_ended:
            return None if claim is None else self._writer.forgotten(is_secure=is_secure)
        now = int(self._now())
        if claim is None or not visit.is_known:
            if not is_opening and not visit.has_session:
                return None
            claim = CookieClaim(visit.session_id, NO_GATEWAY, Slot(0), now)
        elif not claim.is_by_older_key:
            return None
        return self._writer.written(claim, now=now, is_secure=is_secure)


def with_cookie(fields: Iterable[tuple[bytes, bytes]], cookie: str, *, is_opening: bool) -> Fields | None:
    """The fields of an answer with `cookie` among them, and shared caches told to keep out; None for one that the
    application has marked for shared caches: another client must not get this one's session."""
    given = list(fields)
    controls = cache_control(given)
    if is_public(controls):
        return None
    given.append((b"set-cookie", cookie.encode("ascii")))
    if not is_opening and not is_private(controls):
        given.append((b"cache-control", b"private"))
    return given


def cache_control(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The values of all Cache-Control fields."""
    return b",".join(value for name, value in fields if name.lower() == b"cache-control")


def varying(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields of an answer that depends on the client's cookie (RFC 9110 §12.5.5)."""
    given = list(fields)
    named = b",".join(value for name, value in given if name.lower() == b"vary").lower()
    if not {b"cookie", b"*"} & {name.strip() for name in named.split(b",")}:
        given.append((b"vary", b"Cookie"))
    return given
