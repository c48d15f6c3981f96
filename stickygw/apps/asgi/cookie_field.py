"""Puts the gateway's cookie into the head of an answer that an application has made."""

from __future__ import annotations

import re

from stickygw.routing.set_cookie import is_private, is_public

_CACHE_CONTROL = re.compile(rb"\r\ncache-control:([^\r]*)", re.IGNORECASE)


def with_cookie(answer: bytes, cookie: str) -> bytes:
    """`answer`, which begins with a whole head, with `cookie` set and shared caches told to keep out.

    One that the application marked for shared caches stays as it is: another client must not get this one's session.
    """
    head = answer[: answer.index(b"\r\n\r\n")]
    controls = b",".join(_CACHE_CONTROL.findall(head))
    if is_public(controls):
        return answer
    end = answer.index(b"\r\n")
    fields = b"\r\nset-cookie: " + cookie.encode("ascii")
    if not answer.startswith(b"HTTP/1.1 101 ") and not is_private(controls):
        fields += b"\r\ncache-control: private"
    return answer[:end] + fields + answer[end:]
