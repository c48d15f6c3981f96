"""A session's fields under another id, the old one worthless at once: `move`."""

from __future__ import annotations

import logging
from contextlib import suppress

from stickygw.errors import SessionUnavailable
from stickygw.sessions.base import SessionConflict, SessionGone, SessionStore
from stickygw.sessions.endings import to_its_end
from stickygw.sessions.session import Session
from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

MAX_ROUNDS = 16
"""So often is a session read, when others write to it while it is moved; then it is ended all the same, and the last of
that is lost."""

GIVE_UP_SECONDS = 60
"""So long the id of a move that failed is refused: nobody knows it, but a write to it may still be under way."""


async def move(old: Session, new: Session, store: SessionStore, *, ttl: int, remember: int) -> None:
    """Store under `new`'s id what `old` has, stored and not saved yet, and end `old`, to be refused for `remember`
    seconds.

    The two ids may be kept on two nodes of a cluster, so no script can do it; `old` is ended only as it was read, and
    read again if somebody wrote to it meanwhile. Fields are copied as bytes: those of other programs need not mean
    anything here. Raises `SessionUnavailable` (`old` may have ended), `SessionEnded`, and `SessionValueError` as
    `Session.save` does; then nothing is left under the new id.
    """
    written: dict[str, bytes] = {}
    is_begun = False
    try:
        for left in reversed(range(MAX_ROUNDS)):
            async with old.exchange():  # a write of ours that is under way is neither stored nor unsaved
                loaded = await store.load(old.id)
                if old.is_ended or (loaded is None and not old.is_new):
                    raise SessionGone("nothing is stored of the session any more")
                changed, removed = old.unsaved()
                stored = {} if loaded is None else loaded.fields
                fields = {field: packed for field, packed in stored.items() if field not in removed} | changed
                if fields or written:
                    is_begun = True
                    await store.write(new.id, fields, written.keys() - fields.keys(), ttl, is_new=True)
                written = fields
                version = b"" if loaded is None else loaded.version
                with suppress(SessionConflict):
                    await store.end(old.id, remember, version=version if left else None)
                    break
    except BaseException:
        old.mark_stale()  # it may have ended
        if is_begun:
            await to_its_end(_given_up(store, new.id))
        raise
    old.ended(changed, removed)
    if written:
        new.stored(written)


async def _given_up(store: SessionStore, id: SessionId) -> None:
    try:
        await store.end(id, GIVE_UP_SECONDS)
    except SessionUnavailable as error:
        log.warning(
            "a copy of a session stays stored until its time to live is over, and nobody knows its id: %s", error
        )
