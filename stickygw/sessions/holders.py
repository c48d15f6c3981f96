"""Who is told when a session ends: by its id, or because its cookie's time is over. `Holders`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stickygw.types import SessionId

log = logging.getLogger("stickygw.sessions")

SESSION_ENDED = (4401, "session ended")
"""How the WebSockets of a session that has ended are closed: code and reason. Their clients should not come back."""


@dataclass(frozen=True, slots=True, eq=False)
class Holder:
    """What `Sessions.watch` gives and `Sessions.unwatch` takes. `ends_at`: in Unix seconds, for this holder alone."""

    id: SessionId
    on_ended: Callable[[], None]
    ends_at: float


class Holders:
    """As many as there are open WebSockets, which are bounded elsewhere."""

    def __init__(self) -> None:
        self._by_id: dict[SessionId, set[Holder]] = {}
        self._next_end = math.inf  # nobody's time is over before

    def __contains__(self, id: SessionId) -> bool:
        return id in self._by_id

    def __iter__(self) -> Iterator[SessionId]:
        return iter(self._by_id)

    def count_of(self, id: SessionId) -> int:
        """How many this session has."""
        return len(self._by_id.get(id, ()))

    def add(self, holder: Holder) -> None:
        """Tell `holder`, once, at the end."""
        self._by_id.setdefault(holder.id, set()).add(holder)
        self._next_end = min(self._next_end, holder.ends_at)

    def discard(self, holder: Holder) -> None:
        """`holder` is gone, told or not."""
        of_id = self._by_id.get(holder.id)
        if of_id is not None:
            of_id.discard(holder)
            if not of_id:
                del self._by_id[holder.id]

    def tell(self, id: SessionId) -> int:
        """The session has ended: tell its holders; how many."""
        holders = self._by_id.pop(id, ())
        for holder in holders:
            _tell(holder)
        return len(holders)

    def tell_overdue(self, now: float) -> int:
        """Tell those whose time is over at `now`; how many. All are looked at only when one of them may be."""
        if now < self._next_end:
            return 0
        holders = [holder for of_id in self._by_id.values() for holder in of_id]
        overdue = [holder for holder in holders if holder.ends_at <= now]
        self._next_end = min((holder.ends_at for holder in holders if holder.ends_at > now), default=math.inf)
        for holder in overdue:
            self.discard(holder)
            _tell(holder)
        return len(overdue)


def _tell(holder: Holder) -> None:
    try:
        holder.on_ended()
    except Exception:
        log.exception("on_ended raised; the others are told all the same")
