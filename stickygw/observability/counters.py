"""Counts of what happened, by name and label: the numbers behind the logs."""

from __future__ import annotations

from collections import Counter
from itertools import islice


class Counters:
    """Counts that only go up. A label is the reason that the decision carries."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", count: int = 1) -> None:
        """Count `count` more of `name` under `label`."""
        self._counts[name, label] += count

    def value(self, name: str, label: str = "") -> int:
        """How many `name` were counted under `label`."""
        return self._counts[name, label]

    def total(self, name: str) -> int:
        """How many `name` were counted under all labels."""
        return sum(count for (counted, _), count in self._counts.items() if counted == name)

    def since(self, earlier: Counters, *, at_most: int) -> list[tuple[str, str, int]]:
        """What was counted more than in `earlier`: names, labels, and how much; the first `at_most` of them."""
        known = earlier._counts
        grown = ((*key, count - known[key]) for key, count in self._counts.items() if count != known[key])
        return list(islice(grown, at_most))

    def by_name(self) -> dict[str, int]:
        """All of them: ``name`` or ``name{label}`` → count, in the order of the names."""
        return {f"{name}{{{label}}}" if label else name: count for (name, label), count in sorted(self._counts.items())}

    def __str__(self) -> str:
        """One line: ``name{label}=count`` in the order of the names."""
        return " ".join(f"{name}={count}" for name, count in self.by_name().items())
