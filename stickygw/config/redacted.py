"""URLs, and what errors say, for eyes: without a password."""

from __future__ import annotations

import re

HIDDEN = "***"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)?")
_PASSWORD_FIELD = re.compile(r"([?&]password=)([^&#]*)", re.IGNORECASE)


def redacted(url: str) -> str:
    """`url` with its password replaced by ``***``, wherever redis-py would take one from.

    Everything up to the *last* ``@`` counts as user and password, since a password that should have been
    percent-encoded and was not (``/``, ``#``, ``@``) must not show either. A user without a password is
    hidden too: it may be a password in the wrong place.
    """
    match = _SCHEME.match(url)
    scheme = match[0] if match else ""
    rest = url[len(scheme) :]
    if any("@" in field for _, field in _PASSWORD_FIELD.findall(rest)):
        return scheme + HIDDEN  # a field, or a piece of a password before the host: nobody can tell
    user_info, at, place = _PASSWORD_FIELD.sub(rf"\1{HIDDEN}", rest).rpartition("@")
    user, colon, _ = user_info.partition(":")
    return scheme + (user + colon if colon else "") + (HIDDEN + at if at else "") + place


def line_of(error: BaseException | str) -> str:
    """What `error` says, in one line and `redacted`; the name of its type if it says nothing."""
    return redacted(" ".join(str(error).split())) or type(error).__name__
