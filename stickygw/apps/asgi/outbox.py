"""Messages that wait to be sent to a WebSocket, of which some may be dropped: `Outbox`. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from stickygw.connections.flow import WRITE_COST


@dataclass(slots=True)
class Delivery:
    """A message that waits, or is being sent. `number` rises with each one."""

    number: int
    data: str | bytes
    overdue_at: float | None
    """When it has waited too long, by the loop's time; None: never, but it may be dropped."""

    @property
    def is_droppable(self) -> bool:
        """Whether its room drops what is too much."""
        return self.overdue_at is None


class Outbox:
    """Messages in order, each either kept or droppable. Whoever adds them bounds it, by `cost`.

    `cost` is about what they take in memory, in bytes, that of the one being sent too, which is not dropped any more.
    """

    __slots__ = ("_added", "_droppable", "_kept", "_sending", "cost")

    def __init__(self) -> None:
        self._droppable: deque[Delivery] = deque()
        self._kept: deque[Delivery] = deque()
        self._sending: Delivery | None = None
        self._added = 0
        self.cost = 0

    def __len__(self) -> int:
        return len(self._droppable) + len(self._kept) + (self._sending is not None)

    def add(self, data: str | bytes, overdue_at: float | None) -> None:
        """Put `data` behind the others."""
        self._added += 1
        self.cost += cost_of(data)
        delivery = Delivery(self._added, data, overdue_at)
        (self._droppable if delivery.is_droppable else self._kept).append(delivery)

    def drop_oldest(self, cost: int) -> int:
        """Drop droppable messages, the oldest first, until `cost` is free or none is left; how many were dropped."""
        before = self.cost
        dropped = 0
        while self._droppable and before - self.cost < cost:
            self.cost -= cost_of(self._droppable.popleft().data)
            dropped += 1
        return dropped

    def begin(self) -> Delivery | None:
        """The first message, which is being sent from now on; None: nothing waits."""
        kept, droppable = self._kept, self._droppable
        if kept and (not droppable or kept[0].number < droppable[0].number):
            self._sending = kept.popleft()
        else:
            self._sending = droppable.popleft() if droppable else None
        return self._sending

    def end(self) -> None:
        """What was being sent is sent, if it was not cleared meanwhile."""
        if self._sending is not None:
            self.cost -= cost_of(self._sending.data)
            self._sending = None

    def clear(self) -> None:
        """Forget everything."""
        self._droppable.clear()
        self._kept.clear()
        self._sending = None
        self.cost = 0


def cost_of(data: str | bytes) -> int:
    """What `data` takes in memory while it waits, in bytes, about."""
    return len(data) + WRITE_COST
