"""The ways to find a slot for a client of whom nothing is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from stickygw.routing.load import Balance, SlotView, in_service
from stickygw.routing.rendezvous import owner
from stickygw.types import Slot

_GRAIN = 1 << 20
"""Into so many equal parts chance is cut, where a fresh slot's share decides."""


class FirstVisit(ABC):
    """One way. `slots` are all that exist, at least one."""

    @abstractmethod
    def candidates(self, slots: Sequence[SlotView]) -> Sequence[SlotView]:
        """Those of `slots` that it chooses from, at least one."""

    @abstractmethod
    def choose(self, slots: Sequence[SlotView], client_ip: str) -> Slot:
        """The slot for a client. `client_ip` is "" on a Unix socket."""

    @abstractmethod
    def foreseen(self, slots: Sequence[SlotView], client_ip: str) -> Slot | None:
        """What `choose` would give now, or None where chance decides. It takes no turn and draws no number."""


class LeastLoaded(FirstVisit):
    """The better of two random slots; a fresh one stands back, the less the longer it runs."""

    def __init__(self, balance: Balance, random: Callable[[int], int]) -> None:
        self._balance = balance
        self._random = random

    def candidates(self, slots: Sequence[SlotView]) -> Sequence[SlotView]:
        return _open_to_newcomers(slots)

    def choose(self, slots: Sequence[SlotView], client_ip: str) -> Slot:
        # Two random choices keep the fullest slot within O(log log n) of the mean, and do not send
        # everybody to the one emptiest slot (Mitzenmacher 2001).
        views = _open_to_newcomers(slots)
        if len(views) == 1:
            return views[0].slot
        first = self._random(len(views))
        second = self._random(len(views) - 1)
        one, other = views[first], views[second + (second >= first)]
        if one.share != other.share:
            # A fresh slot is the emptiest, and would get every client that it is drawn for, cold as it is.
            fresh, grown = (one, other) if one.share < other.share else (other, one)
            if _stands_back(fresh, grown.share, self._random):
                return grown.slot
        return self._balance.least((one, other)).slot

    def foreseen(self, slots: Sequence[SlotView], client_ip: str) -> Slot | None:
        views = _open_to_newcomers(slots)
        return views[0].slot if len(views) == 1 else None


class RoundRobin(FirstVisit):
    """The next slot; a fresh one stands back in some of its turns, the less the longer it runs."""

    def __init__(self, random: Callable[[int], int]) -> None:
        self._random = random
        self._last_turn = -1

    def candidates(self, slots: Sequence[SlotView]) -> Sequence[SlotView]:
        return _open_to_newcomers(slots)

    def choose(self, slots: Sequence[SlotView], client_ip: str) -> Slot:
        views = self._in_turn(slots)
        most = max(view.share for view in views)
        self._last_turn = next(view.slot for view in views if not _stands_back(view, most, self._random))
        return self._last_turn

    def foreseen(self, slots: Sequence[SlotView], client_ip: str) -> Slot | None:
        views = self._in_turn(slots)
        return views[0].slot if views[0].share >= max(view.share for view in views) else None

    def _in_turn(self, slots: Sequence[SlotView]) -> list[SlotView]:
        return sorted(_open_to_newcomers(slots), key=lambda view: (view.slot <= self._last_turn, view.slot))


class ByAddress(FirstVisit):
    """The slot that the address's hash says.

    A slot that lags keeps its addresses: lag comes and goes, and would send them to and fro. So does a fresh one.
    """

    def candidates(self, slots: Sequence[SlotView]) -> Sequence[SlotView]:
        return _able(slots)

    def choose(self, slots: Sequence[SlotView], client_ip: str) -> Slot:
        return owner(client_ip.encode(), [view.slot for view in _able(slots)])

    def foreseen(self, slots: Sequence[SlotView], client_ip: str) -> Slot | None:
        return self.choose(slots, client_ip)


def _open_to_newcomers(slots: Sequence[SlotView]) -> Sequence[SlotView]:
    """Those of `_able` that do not lag; all of them, if all do."""
    able = _able(slots)
    return [view for view in able if not view.is_lagging] or able


def _able(slots: Sequence[SlotView]) -> Sequence[SlotView]:
    """The slots that can take a client at once; else those in service that can after a wait; else all in service."""
    return (
        [view for view in slots if view.is_open]
        or [view for view in in_service(slots) if not view.is_full]
        or in_service(slots)
    )


def _stands_back(fresh: SlotView, grown_share: float, random: Callable[[int], int]) -> bool:
    """Whether chance passes `fresh` over, for a slot whose share is `grown_share`.

    It takes its share of what it would get otherwise, so what it gets grows as evenly as its share does.
    """
    return fresh.share < grown_share and random(_GRAIN) * grown_share >= fresh.share * _GRAIN
