"""Whether a request loads a document, as a person who follows a link does."""

from __future__ import annotations

from stickygw.routing.request_head import Head


def is_navigation(head: Head) -> bool:
    """Whether a browser loads a document (Fetch Metadata; older ones show it by what they accept)."""
    mode = head.first.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return head.method == "GET" and b"text/html" in head.first.get(b"accept", b"")
