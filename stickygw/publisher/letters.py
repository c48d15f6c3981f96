"""What to publish at which address, for each thing that one can ask of a publisher. Pure, but for random groups."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import Any

from stickygw.apps.native.codec import CodecName, codec_named
from stickygw.bridge.addresses import DIRECT, check_room, user_address
from stickygw.bridge.base import Publication
from stickygw.wire.addressee import addressee
from stickygw.wire.closing import close_payload
from stickygw.wire.envelope import CLOSE, GROUP_BYTES, MAX_ENVELOPE_BYTES

MAX_MESSAGE_BYTES = MAX_ENVELOPE_BYTES - 1024
"""What a worker reads of one envelope, less room for the rest of it."""

Parts = Sequence[tuple[str, Publication]]
"""What is published, with the address of each."""


class Letters:
    """What has to be published where, for each thing that one can ask for; everything that is wrong is found here."""

    def __init__(self, codec: CodecName | None) -> None:
        self._codec = codec_named(codec)

    def to_rooms(self, room: str | Collection[str], message: Any) -> Parts:
        names = (room,) if isinstance(room, str) else tuple(dict.fromkeys(room))
        group = secrets.token_bytes(GROUP_BYTES) if len(names) > 1 else b""
        publication = self._publication(message, group=group)
        return [(check_room(name), publication) for name in names]

    def to_user(self, user: str, message: Any) -> Parts:
        return [(user_address(user), self._publication(message))]

    def to_session(self, session: str, message: Any) -> Parts:
        return [(DIRECT, self._publication(message, to=addressee("session", session)))]

    def closing(self, session: str | None, user: str | None, connection: str | None, code: int, reason: str) -> Parts:
        if [session, user, connection].count(None) != 2:
            raise ValueError("disconnect takes one of session=, user= and connection=")
        payload = close_payload(code, reason)
        if user is not None:
            return [(user_address(user), Publication(CLOSE, payload))]
        to = addressee("session", session) if session is not None else addressee("connection", connection or "")
        return [(DIRECT, Publication(CLOSE, payload, to))]

    def _publication(self, message: Any, *, to: str = "", group: bytes = b"") -> Publication:
        encoded = self._codec.encode(message)
        if len(encoded.payload) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message has at most {MAX_MESSAGE_BYTES} bytes, not {len(encoded.payload)}")
        return Publication(encoded.opcode, encoded.payload, to, group)
