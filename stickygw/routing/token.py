"""The signed value outside of a cookie, for clients without a cookie jar: in the query, or as a subprotocol.

``?session=VALUE``, or ``stickygw.session.VALUE`` among the subprotocols that a WebSocket offers. It is a credential
where the usual log of requests would show it, so whoever serves the request gets its head without: `without_token`.
"""

from __future__ import annotations

from dataclasses import replace

from stickygw.routing.navigation import is_navigation
from stickygw.routing.request_head import Head, first_values

_PARAMETER = "session="
_SUBPROTOCOL = b"stickygw.session."
_SUBPROTOCOLS = b"sec-websocket-protocol"


def token_values(head: Head) -> list[bytes]:
    """The values that are offered as tokens, as sent, in order.

    None where a document is loaded: a link with somebody else's token would let its reader go on as that one.
    """
    values: list[bytes] = []
    if _PARAMETER in head.query and not is_navigation(head):
        given = (part for part in head.query.split("&") if part.startswith(_PARAMETER))
        values += (part[len(_PARAMETER) :].encode("ascii") for part in given)
    if head.is_websocket and _SUBPROTOCOLS in head.first:
        offered = (name for line in head.get_all(_SUBPROTOCOLS) for name in _names(line))
        values += (name[len(_SUBPROTOCOL) :] for name in offered if name.startswith(_SUBPROTOCOL))
    return values


def without_token(head: Head) -> Head:
    """`head` without anything that stands where a token would, be it genuine or not; itself, if there is nothing."""
    if _PARAMETER in head.query:
        head = _with_query(head, "&".join(part for part in head.query.split("&") if not part.startswith(_PARAMETER)))
    if head.is_websocket and any(_SUBPROTOCOL in line for line in head.get_all(_SUBPROTOCOLS)):
        fields = [field for field in map(_without_subprotocol, head.fields) if field is not None]
        head = replace(head, fields=fields, first=first_values(fields))
    return head


def _names(line: bytes) -> list[bytes]:
    return [name.strip(b" \t") for name in line.split(b",")]


def _with_query(head: Head, query: str) -> Head:
    target = f"{head.path}?{query}" if query else head.path
    return replace(head, target=target, query=query)


def _without_subprotocol(field: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """The field without tokens; None if nothing else was in it."""
    name, line = field
    if name != _SUBPROTOCOLS or _SUBPROTOCOL not in line:
        return field
    left = [offered for offered in _names(line) if not offered.startswith(_SUBPROTOCOL)]
    return (name, b", ".join(left)) if left else None
