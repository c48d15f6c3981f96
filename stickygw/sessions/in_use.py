"""What a worker answers when a command asks for the sessions that it has in use."""

from __future__ import annotations

from typing import Any

from stickygw.sessions.registry import Sessions


def in_use(sessions: Sessions, asked: Any) -> int | dict[str, int]:
    """The answer to `stickygw.wire.tell.SESSIONS_IN_USE`, which says what is asked."""
    if asked is None:
        return sessions.session_count
    return {id: count for id in asked if (count := sessions.watched_by(id))}
