"""The Set-Cookie field that gives a client its cookie, as browsers read it (RFC 6265bis §5.6, §5.7)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stickygw.routing.cookie import CookieClaim, CookieKeys

MAX_SET_COOKIE_BYTES = 4096
"""What every browser takes of name, value and attributes together (RFC 6265 §6.1). The bounds of the settings keep any
line below it."""


@dataclass(frozen=True, slots=True)
class CookieOptions:
    """The cookie's name, and all of its attributes that are the same for each client.

    `domain`: None keeps the cookie with the host that set it. `same_site` is "Lax", "Strict" or "None".
    `is_partitioned`: one jar for each site in whose pages ours are embedded (CHIPS).
    """

    name: str
    domain: str | None = None
    path: str = "/"
    same_site: str = "Lax"
    is_partitioned: bool = False

    @property
    def needs_secure(self) -> bool:
        """Whether browsers refuse the cookie without Secure, whatever a proxy has told us of the client's side."""
        prefixed = self.name.lower().startswith(("__host-", "__secure-"))  # in any case of letters (RFC 6265bis §5.7)
        return prefixed or self.same_site == "None" or self.is_partitioned

    def set_cookie(self, value: str, *, max_age: int, is_secure: bool) -> str:
        """The value of a Set-Cookie field; `max_age` is in seconds, `is_secure`: the client's side is TLS."""
        domain = f"; Domain={self.domain}" if self.domain is not None else ""
        secure = "; Secure" if is_secure or self.needs_secure else ""
        partitioned = "; Partitioned" if self.is_partitioned else ""
        return (
            f"{self.name}={value}; Path={self.path}{domain}; HttpOnly; SameSite={self.same_site}; Max-Age={max_age}"
            f"{secure}{partitioned}"
        )


@dataclass(frozen=True, slots=True)
class CookieWriter:
    """Signs and writes cookies. `lifetime`: seconds that one is good, from when it was first signed."""

    keys: CookieKeys
    options: CookieOptions
    lifetime: int

    def written(self, claim: CookieClaim, *, now: int, is_secure: bool) -> str:
        """The Set-Cookie value that says `claim`, at `now` (Unix seconds). `is_secure`: the client's side is TLS."""
        # One of the future, by a clock that was set back, lives no longer than others.
        left = min(self.lifetime, max(0, self.lifetime - (now - claim.issued)))
        return self.options.set_cookie(self.keys.sign(claim), max_age=left, is_secure=is_secure)

    def forgotten(self, *, is_secure: bool) -> str:
        """The Set-Cookie value that makes a client drop its cookie."""
        return self.options.set_cookie("", max_age=0, is_secure=is_secure)


_IS_PRIVATE = re.compile(rb"\b(?:private|no-store)\b", re.IGNORECASE)
_IS_PUBLIC = re.compile(rb"\b(?:public|s-maxage)\b", re.IGNORECASE)


def is_private(cache_control: bytes) -> bool:
    """Whether shared caches keep out of an answer with these Cache-Control values (RFC 9111 §5.2.2)."""
    return _IS_PRIVATE.search(cache_control) is not None


def is_public(cache_control: bytes) -> bool:
    """Whether the application has marked an answer for shared caches: a cookie in it would reach other clients."""
    return _IS_PUBLIC.search(cache_control) is not None
