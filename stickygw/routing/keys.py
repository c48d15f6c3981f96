"""Affinity keys: what, in a request, says which connections belong together.

A key is looked for only in the request target, the named field or the named cookie, as the bytes that were
sent, but for escapes in the target that change nothing: ``/match/%61`` is ``/match/a`` (`_canonical`). Nothing is
unquoted or folded in case. Of several fields, cookies or parameters of one name the first counts. The slot for a
key is `stickygw.routing.router`'s business.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from urllib.parse import quote, unquote_to_bytes

from stickygw.routing.cookie import cookie_values
from stickygw.routing.request_head import Head

MAX_KEY_BYTES = 512
"""A longer value is no key, so that clients do not decide how much memory the key table takes."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")  # RFC 9110 §5.6.2
_PARAMETER = re.compile(r"[0-9A-Za-z._~\-]{1,128}")
_SAFE = "".join(character for character in map(chr, range(0x21, 0x7F)) if character not in "%/?#")
_PATTERN = re.compile(r"((?:/[^/{}?#\s]+)*/)\{[A-Za-z_][0-9A-Za-z_]*\}((?:/[^/{}?#\s]+)*)")


class Key(ABC):
    """One kind of affinity key. `text` is what the operator wrote, in ASCII without NUL."""

    is_own_cookie = False
    is_of_client = False
    """All requests of one client have the same: those that come over one connection need not be told apart by it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._prefix = text.encode("ascii") + b"\x00"

    def __repr__(self) -> str:
        return f"Key({self.text!r})"

    def of(self, head: Head, client_ip: str) -> bytes | None:
        """The key of a request, or None: it has none, an empty one, or one longer than `MAX_KEY_BYTES`.

        `client_ip` is "" on a Unix socket.
        """
        value = self._value(head, client_ip)
        return self.for_value(value) if value else None

    def for_value(self, value: bytes) -> bytes | None:
        """The key of a request that brings `value`, or None: it is empty, or longer than `MAX_KEY_BYTES`.

        The key begins with its kind, so that two kinds never collide.
        """
        return self._prefix + value if value and len(value) <= MAX_KEY_BYTES else None

    @abstractmethod
    def _value(self, head: Head, client_ip: str) -> bytes | None: ...


class OwnCookieKey(Key):
    """``cookie``: our signed cookie. It makes a claim, which the router verifies; `of` gives None."""

    is_own_cookie = True
    is_of_client = True

    def _value(self, head: Head, client_ip: str) -> bytes | None:
        return None


class CookieKey(Key):
    """``cookie:NAME``: another program's cookie. Its name is case-sensitive."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._name = name.encode("ascii")

    def _value(self, head: Head, client_ip: str) -> bytes | None:
        values = cookie_values(head.fields, self._name)
        return values[0] if values else None


class HeaderKey(Key):
    """``header:NAME``: a field of the head."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._name = name.lower().encode("ascii")

    def _value(self, head: Head, client_ip: str) -> bytes | None:
        return head.get(self._name)


class QueryKey(Key):
    """``query:NAME``: a parameter after the ``?`` of the request target."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._start = f"{name}="

    def _value(self, head: Head, client_ip: str) -> bytes | None:
        if self._start in head.query:
            for parameter in head.query.split("&"):
                if parameter.startswith(self._start):
                    return _canonical(parameter[len(self._start) :].replace("+", "%20"), also_safe="/?")
        return None


class PathKey(Key):
    """``path:/match/{id}``: one whole segment of the path. Further segments may follow the pattern."""

    def __init__(self, text: str, before: str, after: str) -> None:
        super().__init__(text)
        self._match = re.compile(re.escape(before) + "([^/]+)" + re.escape(after) + r"(?:/|\Z)").match

    def _value(self, head: Head, client_ip: str) -> bytes | None:
        match = self._match(head.path)
        return _canonical(match[1]) if match else None


class AddressKey(Key):
    """``ip``: the client's address."""

    is_of_client = True

    def _value(self, head: Head, client_ip: str) -> bytes | None:
        return client_ip.encode()


def _canonical(value: str, *, also_safe: str = "") -> bytes:
    """A part of a URL as all have it who mean the same: nothing is escaped that need not be (RFC 3986 §6.2.2.2).

    An application sees ``a`` and ``%61`` as one id. If they were two keys, what it keeps for the id would be in two
    workers. `also_safe` are characters that part no parts here.
    """
    if "%" not in value:
        return value.encode("ascii")
    return quote(unquote_to_bytes(value), safe=_SAFE + also_safe).encode("ascii")


def parse_key(text: str) -> Key:
    """The key that the setting `text` names. Raises `ValueError` with one sentence on what is allowed."""
    kind, colon, name = text.partition(":")
    if not colon and kind == "cookie":
        return OwnCookieKey(text)
    if not colon and kind == "ip":
        return AddressKey(text)
    if kind == "cookie" and _TOKEN.fullmatch(name):
        return CookieKey(text, name)
    if kind == "header" and _TOKEN.fullmatch(name):
        return HeaderKey(text, name)
    if kind == "query" and _PARAMETER.fullmatch(name):
        return QueryKey(text, name)
    if kind == "path" and name.isascii() and name.isprintable() and (match := _PATTERN.fullmatch(name)):
        return PathKey(text, match[1], match[2])
    raise ValueError(
        f"{text!r} is no affinity key: give cookie, cookie:NAME, header:NAME, query:NAME, "
        "path:/pattern/{part} with exactly one {part} and no slash at its end, or ip"
    )
