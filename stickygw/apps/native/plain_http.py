"""Plain HTTP at a native application: the health answer, static files, and 426 for what no ASGI application serves."""

from __future__ import annotations

from stickygw.apps.native.cookies import CookieJar
from stickygw.apps.native.runtime import Runtime
from stickygw.apps.static import StaticFile, StaticFiles
from stickygw.connections.answering import Answering
from stickygw.routing.navigation import is_navigation
from stickygw.routing.request_head import Head
from stickygw.sessions.registry import new_session_id
from stickygw.wire.link import Offer

READ_BYTES = 256 * 1024
"""Files are read and written in pieces of this size."""

_UPGRADE_HINT = b"This is a WebSocket endpoint: connect with a WebSocket client (RFC 6455).\n"


class PlainHttp:
    """Answers one plain request on each connection; every answer closes it, so that the next request is routed.

    With an ASGI application (``App(http=…)``), those that it `has`; all others are the application's.
    """

    def __init__(self, runtime: Runtime, cookies: CookieJar) -> None:
        self._cookies = cookies
        self._health_path = runtime.settings.health_path
        self._slot = runtime.identity.slot
        folder = runtime.app.static
        self._static = StaticFiles(folder) if folder is not None else None

    def has(self, head: Head) -> bool:
        """Whether the request in `head` has an answer here, other than that there is none."""
        if head.method == "OPTIONS":
            return head.target == "*"
        if head.method not in ("GET", "HEAD"):
            return False
        return head.path == self._health_path or (self._static is not None and self._static.find(head.path) is not None)

    async def answer(self, offer: Offer, head: Head, answering: Answering) -> None:
        """Write the answer to the request in `head`."""
        with_body = head.method != "HEAD"
        is_read = head.method in ("GET", "HEAD")
        if is_read and head.path == self._health_path:
            body = b'{"status":"ok","slot":%d}\n' % self._slot
            fields = [("Cache-Control", "no-store")]
            answering.answer(200, body, fields=fields, content_type="application/json", with_body=with_body)
            return
        file = self._static.find(head.path) if self._static is not None and is_read else None
        if file is not None:
            await self._send_file(offer, head, file, answering, with_body)
        elif head.method == "OPTIONS" and head.target == "*":
            answering.answer(200, b"")
        elif self._static is not None and is_read:
            answering.answer(404, b"no such file\n", with_body=with_body)
        else:
            fields = [("Upgrade", "websocket")]
            answering.answer(426, _UPGRADE_HINT, fields=fields, with_body=with_body)

    async def _send_file(
        self, offer: Offer, head: Head, file: StaticFile, answering: Answering, with_body: bool
    ) -> None:
        fields = [("ETag", file.etag), ("Last-Modified", file.last_modified), ("X-Content-Type-Options", "nosniff")]
        cookie = self._cookies.due(offer, offer.session or new_session_id()) if is_navigation(head) else None
        if cookie is not None:
            # Another client must not get this one's session out of a shared cache.
            fields += [("Set-Cookie", cookie), ("Cache-Control", "private, no-cache")]
        else:
            fields.append(("Cache-Control", "no-cache"))
        if _has_already(head, file):
            answering.begin(304, file.size, fields=fields, content_type=file.content_type)
            answering.finish()
            return
        try:
            content = file.path.open("rb")
        except OSError:
            answering.answer(404, b"no such file\n", with_body=with_body)
            return
        with content:
            await answering.begin(200, file.size, fields=fields, content_type=file.content_type)
            left = file.size if with_body else 0
            while left > 0 and not answering.is_over:
                piece = content.read(min(READ_BYTES, left))
                if not piece:  # the file was cut short under us: the client sees that the length is not reached
                    break
                left -= len(piece)
                await answering.write(piece)
        answering.finish()


def _has_already(head: Head, file: StaticFile) -> bool:
    """Whether the client names `file` as it is now among what it has (RFC 9110 §13.1.2: weak comparison)."""
    named = (head.get(b"if-none-match") or b"").split(b",")
    return any(tag.strip(b" \t").removeprefix(b"W/") == file.etag.encode() for tag in named)
