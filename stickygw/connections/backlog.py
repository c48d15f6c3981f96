"""Frames that a client has not taken, of which some may be dropped: `Backlog`. Pure."""

from __future__ import annotations

from collections import deque
from heapq import merge

FRAME_COST = 64
"""Bytes of memory that a frame costs beside its data while it waits."""


class Backlog:
    """Whole frames in order, each either kept or droppable. Whoever adds them bounds it, by `cost`.

    `cost` is about what they take in memory, in bytes; `kept_cost` that of those that must not be dropped.
    """

    __slots__ = ("_added", "_droppable", "_kept", "cost", "kept_cost")

    def __init__(self) -> None:
        # Each with the number of its frame: by that the two are put in order again.
        self._droppable: deque[tuple[int, bytes]] = deque()
        self._kept: deque[tuple[int, bytes]] = deque()
        self._added = 0
        self.cost = 0
        self.kept_cost = 0

    def __len__(self) -> int:
        return len(self._droppable) + len(self._kept)

    def add(self, frame: bytes, *, is_droppable: bool) -> None:
        """Put `frame` behind the others."""
        self._added += 1
        self.cost += cost_of(frame)
        if is_droppable:
            self._droppable.append((self._added, frame))
        else:
            self._kept.append((self._added, frame))
            self.kept_cost += cost_of(frame)

    def frames(self) -> list[tuple[bytes, bool]]:
        """All of them, in order, each with whether it is droppable; they stay."""
        droppable = ((number, frame, True) for number, frame in self._droppable)
        kept = ((number, frame, False) for number, frame in self._kept)
        return [(frame, is_droppable) for _, frame, is_droppable in merge(droppable, kept)]

    def drop_oldest(self, cost: int) -> int:
        """Drop droppable frames, the oldest first, until `cost` is free or none is left; how many were dropped."""
        dropped = 0
        while cost > 0 and self._droppable:
            freed = cost_of(self._droppable.popleft()[1])
            self.cost -= freed
            cost -= freed
            dropped += 1
        return dropped

    def take(self, size: int | None = None) -> list[bytes]:
        """The first frames, in order, until they have `size` bytes or more; None: all of them."""
        frames: list[bytes] = []
        taken = 0
        while self and (size is None or taken < size):
            frame = self._pop_first()
            taken += len(frame)
            frames.append(frame)
        return frames

    def _pop_first(self) -> bytes:
        if self._kept and (not self._droppable or self._kept[0][0] < self._droppable[0][0]):
            frame = self._kept.popleft()[1]
            self.kept_cost -= cost_of(frame)
        else:
            frame = self._droppable.popleft()[1]
        self.cost -= cost_of(frame)
        return frame


def cost_of(frame: bytes) -> int:
    """What `frame` takes in memory while it waits, in bytes, about."""
    return len(frame) + FRAME_COST
