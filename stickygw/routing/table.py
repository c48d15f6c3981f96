"""Which slot an affinity key has now: bounded memory of keys in use, before the hash has its say.

It is what keeps a key in place when the hash would move it: after scaling, or when bounded loads chose
another slot.
"""

from __future__ import annotations

from collections import OrderedDict

from stickygw.types import Slot

DEFAULT_LIMIT = 100_000


class KeyTable:
    """Key → slot, at most `limit` keys. `now` never goes back.

    An entry lives while its key has live connections, and `linger` seconds after the last has ended. When
    the table is full a new key takes the place of the one that lingers longest; where all have live
    connections it is not kept, and goes where the hash says. Every call takes constant time, amortised.
    """

    __slots__ = ("_limit", "_linger", "_lingering", "_live")

    def __init__(self, limit: int = DEFAULT_LIMIT, *, linger: float) -> None:
        self._limit = limit
        self._linger = linger
        self._live: dict[bytes, tuple[Slot, int]] = {}
        """Slot and how many connections."""
        self._lingering: OrderedDict[bytes, tuple[Slot, float]] = OrderedDict()
        """Slot and when it is forgotten; since all linger equally long, the first to go is in front."""

    def __len__(self) -> int:
        """How many keys are kept, those included whose time is over but that no call has met since."""
        return len(self._live) + len(self._lingering)

    def get(self, key: bytes, now: float) -> Slot | None:
        """The slot of `key`, or None."""
        live = self._live.get(key)
        if live is not None:
            return live[0]
        lingering = self._lingering.get(key)
        return lingering[0] if lingering is not None and now < lingering[1] else None

    def connected(self, key: bytes, slot: Slot, now: float, *, is_detour: bool = False) -> bool:
        """A connection with `key` goes to `slot`. Whether it is counted; if so, it is owed one `ended`.

        `is_detour`: its own slot could not take it. Then a key with live connections stays where these are.
        """
        self._forget_expired(now)
        live = self._live.get(key)
        if live is not None:
            kept, count = live
            self._live[key] = (kept if is_detour else slot, count + 1)
            return True
        if self._lingering.pop(key, None) is None and len(self) >= self._limit:
            if not self._lingering:
                return False
            self._lingering.popitem(last=False)
        self._live[key] = (slot, 1)
        return True

    def ended(self, key: bytes, now: float) -> None:
        """A connection that was counted under `key` is over."""
        self._forget_expired(now)
        live = self._live.get(key)
        if live is None:
            return
        slot, count = live
        if count > 1:
            self._live[key] = (slot, count - 1)
        else:
            del self._live[key]
            self._lingering[key] = (slot, now + self._linger)

    def _forget_expired(self, now: float) -> None:
        # Each key is forgotten once, so the loop is paid for by the call that made it linger.
        while self._lingering:
            key, (_, until) = next(iter(self._lingering.items()))
            if now < until:
                return
            del self._lingering[key]
