"""Whether the store is away, as far as the last answer tells: `Outage`."""

from __future__ import annotations

import math
from collections.abc import Callable

RETRY_SECONDS = 5.0
"""What can do without the store does not ask it again for so long after it gave no answer."""


class Outage:
    """One worker's view of its store. `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = -math.inf

    @property
    def is_on(self) -> bool:
        """Whether the store gave no answer in the last `RETRY_SECONDS`, and none since."""
        return self._clock() < self._until

    def begin(self) -> None:
        """The store gave no answer."""
        self._until = self._clock() + RETRY_SECONDS

    def end(self) -> None:
        """The store answered."""
        self._until = -math.inf
