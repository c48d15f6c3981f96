"""What the router sees of each slot, and which of several has least to do.

Connections come from the primary's own books, to the moment; the rest is what the worker's last heartbeat said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stickygw.types import Slot


@dataclass(frozen=True, slots=True)
class Load:
    """How a worker said it is.

    `lag`: seconds that its event loop was late; `queue`: messages that wait in it; `cpu`: of one CPU, 1.0 is all of it;
    `rss`: bytes of resident memory.
    """

    lag: float = 0.0
    queue: int = 0
    cpu: float = 0.0
    rss: int = 0


_NOT_HEARD_OF = Load()


@dataclass(slots=True)
class SlotView:
    """A slot that exists, at this moment. Whoever decides by it keeps none of it: it is brought up to date in place.

    `is_ready`: its worker takes connections. `is_full`: it is at its limit. `connections`: open ones and those on
    their way to it, so that many arrivals at once do not all see it empty. `is_drained`: an operator took it out of
    service; it exists, but gets nobody. `is_lagging`: its event loop is later than it may be, so it gets no first
    visits. `share`: of the first visits that a full-grown worker would get, from just above 0 to 1.0.
    """

    slot: Slot
    is_ready: bool
    is_full: bool
    connections: int
    is_drained: bool = False
    is_lagging: bool = False
    share: float = 1.0
    load: Load = _NOT_HEARD_OF

    @property
    def is_open(self) -> bool:
        """Whether it can take a connection at once: it is ready, has room and is in service."""
        return self.is_ready and not self.is_full and not self.is_drained


def in_service(slots: Sequence[SlotView]) -> Sequence[SlotView]:
    """The slots that are not drained; all, if all are."""
    return [view for view in slots if not view.is_drained] or slots


@dataclass(frozen=True, slots=True)
class _Quantity:
    """Something to compare. Below `floor` a difference is noise, and shall not look like twice as much."""

    of: Callable[[SlotView], float]
    floor: float


_QUANTITIES: Mapping[str, _Quantity] = {
    # Counted, not measured: even one against none is a difference.
    "connections": _Quantity(lambda view: view.connections, 0),
    # Late by a scheduler's slice or a collection of garbage: every idle loop is, now and then.
    "lag": _Quantity(lambda view: view.load.lag, 0.01),
    # What a few clients' bursts leave for the next turn of the loop.
    "queue": _Quantity(lambda view: view.load.queue, 16),
    # Heartbeats, pings and the clock tick (10 ms) in a second of CPU time.
    "cpu": _Quantity(lambda view: view.load.cpu, 0.05),
    # What the allocator keeps for itself, and no client takes.
    "rss": _Quantity(lambda view: view.load.rss, 16 << 20),
}
_ENTRY = re.compile(r"([a-z]+)(?::([0-9]{1,6}(?:\.[0-9]{1,6})?))?")


class Balance:
    """Compares slots by weighted quantities, none of which needs a scale: seconds and bytes can be added.

    `weights` has, for each name, a positive number.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._terms = [(_QUANTITIES[name], weight) for name, weight in weights.items()]
        self._text = ", ".join(name if weight == 1 else f"{name}:{weight:g}" for name, weight in weights.items())

    def __str__(self) -> str:
        return self._text

    def scores(self, views: Sequence[SlotView]) -> list[float]:
        """How much each of `views` has to do, beside the others: the least has the lowest.

        Of each quantity a view has its part of the sum, times the weight: for two of them
        weight · (x + floor) / (x + y + 2 · floor). All scores together are the sum of the weights.
        """
        scores = [0.0] * len(views)
        for quantity, weight in self._terms:
            of, floor = quantity.of, quantity.floor
            values = [of(view) + floor for view in views]
            total = sum(values)
            for at, value in enumerate(values):
                scores[at] += weight * value / total if total else weight / len(values)
        return scores

    def least(self, views: Sequence[SlotView]) -> SlotView:
        """The view with the lowest score; of equals the first. Raises `ValueError` for no views."""
        scores = self.scores(views)
        return views[scores.index(min(scores))]


def parse_balance(texts: Sequence[str]) -> Balance:
    """The balance that the setting's `texts` name. Raises `ValueError` with one sentence on what is allowed."""
    weights: dict[str, float] = {}
    for text in texts:
        match = _ENTRY.fullmatch(text)
        name, weight = match.groups() if match else ("", None)
        if name not in _QUANTITIES or (weight is not None and not float(weight)):
            raise ValueError(
                f"{text!r} is nothing to balance by: give {', '.join(_QUANTITIES)}, each with a positive weight if "
                "you like (connections:2)"
            )
        if name in weights:
            raise ValueError(f"{name} is given twice: give each quantity once, with a weight if you like ({name}:2)")
        weights[name] = float(weight or 1)
    if not weights:
        raise ValueError(f"there is nothing to balance by: give at least one of {', '.join(_QUANTITIES)}")
    return Balance(weights)


DEFAULT_BALANCE = parse_balance(["connections", "lag"])
