"""The signed cookie: a session's identity, and a hint which slot of which gateway serves it.

``v1.<key id>.<session id>.<gateway id>.<slot>.<issued>.<hmac-sha256>``, at most `MAX_COOKIE_BYTES`. There
is one way to write each value, and the signature covers all before it. The slot is signed too, so that
nobody can aim load at a worker. What cannot be verified is no cookie: there are no errors here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stickygw.routing.request_head import Head
from stickygw.routing.token import token_values
from stickygw.types import MAX_SLOTS, GatewayId, SessionId, Slot

MAX_COOKIE_BYTES = 256
"""A bound for whoever stores cookies; the longest that the grammar allows has 115 bytes."""
MIN_SECRET_BYTES = 32
MAX_CANDIDATES = 8
"""Cookies of our name, and tokens, in one request that are looked at; a request with more has none."""

_GRAMMAR = re.compile(
    rb"(v1\.([0-9a-f]{8})\.([0-9a-f]{32})\.([0-9a-f]{8})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,11}))"
    rb"\.([0-9A-Za-z_\-]{43})"
)
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class CookieClaim:
    """What a verified cookie says. `issued` is in Unix seconds.

    `is_by_older_key`: not signed with the newest key, so it has to be written anew before its own is retired.
    """

    session: SessionId
    gateway: GatewayId
    slot: Slot
    issued: int
    is_by_older_key: bool = field(default=False, compare=False)


class CookieKeys:
    """The keys made from `secrets`, newest first: the newest signs, all verify.

    Raises `ValueError` when there is no secret or one is shorter than `MIN_SECRET_BYTES`.
    """

    __slots__ = ("_keys", "_newest")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed to sign cookies")
        if any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"a secret that signs cookies has at least {MIN_SECRET_BYTES} bytes")
        self._newest = _key_id(secrets[0])
        self._keys = {_key_id(secret): _derived(secret) for secret in secrets}

    def __repr__(self) -> str:
        return f"CookieKeys({', '.join(key_id.decode() for key_id in self._keys)})"

    def sign(self, claim: CookieClaim) -> str:
        """The cookie's value that says `claim`."""
        body = b"v1.%b.%b.%b.%d.%d" % (
            self._newest,
            claim.session.encode("ascii"),
            claim.gateway.encode("ascii"),
            claim.slot,
            claim.issued,
        )
        return (body + b"." + _signature(self._keys[self._newest], body)).decode("ascii")

    def verify(self, value: bytes, *, now: float, lifetime: float) -> CookieClaim | None:
        """What the cookie `value` says at `now` (Unix seconds), or None.

        None: not ours, altered in any way, or older than `lifetime` seconds. One of the future is good: we signed it,
        and a clock that was set back must not log everybody out.
        """
        match = _GRAMMAR.fullmatch(value)
        if match is None:
            return None
        body, key_id, session, gateway, slot, issued, signature = match.groups()
        key = self._keys.get(key_id)
        # The text is compared, not what it decodes to: there is one way to write it.
        if key is None or not hmac.compare_digest(_signature(key, body), signature):
            return None
        if now - int(issued) > lifetime or int(slot) >= MAX_SLOTS:
            return None
        return CookieClaim(
            SessionId(session.decode("ascii")),
            GatewayId(gateway.decode("ascii")),
            Slot(int(slot)),
            int(issued),
            key_id != self._newest,
        )


def claim_of(
    head: Head, *, name: str, keys: CookieKeys, now: float, lifetime: float, reads_token: bool = False
) -> CookieClaim | None:
    """What the cookies called `name` in all Cookie fields of `head` prove, or None.

    With `reads_token`, a value that comes as a token (`stickygw.routing.token`) counts like a cookie. Of several that
    verify with different session ids none counts: somebody planted one (a neighbouring host may set cookies for ours),
    and which one is the visitor's cannot be told. With one id the newest issued counts.
    """
    values = cookie_values(head.fields, name.encode("ascii"))
    if reads_token:
        values += token_values(head)
    return newest_claim(values, keys=keys, now=now, lifetime=lifetime)


def newest_claim(values: Sequence[bytes], *, keys: CookieKeys, now: float, lifetime: float) -> CookieClaim | None:
    """What `values`, all that one request brings, prove: see `claim_of`."""
    if not values or len(values) > MAX_CANDIDATES:
        return None
    newest: CookieClaim | None = None
    for value in values:
        claim = keys.verify(value, now=now, lifetime=lifetime)
        if claim is None:
            continue
        if newest is not None and newest.session != claim.session:
            return None
        if newest is None or claim.issued > newest.issued:
            newest = claim
    return newest


def cookie_values(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of all cookies called `name` in all Cookie fields, as sent, in order (RFC 6265 §4.2.1)."""
    values = []
    for field_name, line in fields:
        if field_name == b"cookie" and name in line:
            for pair in line.split(b";"):
                cookie_name, equals, value = pair.strip(b" \t").partition(b"=")
                if cookie_name == name and equals:
                    values.append(value)
    return values


def _key_id(secret: bytes) -> bytes:
    return hashlib.sha256(b"stickygw cookie key id\x00" + secret).hexdigest()[:8].encode("ascii")


def _derived(secret: bytes) -> bytes:
    """A key for cookies only, so that nothing else signed with `secret` can ever pass for a cookie."""
    return hmac.digest(secret, b"stickygw cookie v1", "sha256")


def _signature(key: bytes, body: bytes) -> bytes:
    """base64url without padding (RFC 4648 §5): 43 characters."""
    return b2a_base64(hmac.digest(key, body, "sha256"), newline=False).translate(_TO_URL_SAFE, b"=")
