"""Which slot an affinity key has now: bounded memory of keys in use, before the hash has its say.

It is what keeps a key in place when the hash would move it: after scaling, or when bounded loads chose
another slot.
"""

from __future__ import annotations

from collections import OrderedDict

from stickygw.types import Slot

DEFAULT_LIMIT = 100_000


class _Live:
    """A key in use: its slot, how many connections are on their way, and how many each slot's worker has."""

    __slots__ = ("coming", "slot", "taken")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.coming = 0
        self.taken: dict[Slot, int] = {}


class KeyTable:
    """Key → slot, at most `limit` keys. `now` never goes back.

    An entry lives while its key has live connections, and `linger` seconds after the last has ended. Its slot is one
    where a worker has connections of the key, if there is any: those who only wait for a slot keep nobody there.
    Nor do those in a slot that is gone, from which all come back: they meet where the first of them went.

    When the table is full a new key takes the place of the one that lingers longest; where all have live
    connections it is not kept, and goes where the hash says. Every call takes constant time, amortised.
    """

    __slots__ = ("_limit", "_linger", "_lingering", "_live")

    def __init__(self, limit: int = DEFAULT_LIMIT, *, linger: float) -> None:
        self._limit = limit
        self._linger = linger
        self._live: dict[bytes, _Live] = {}
        self._lingering: OrderedDict[bytes, tuple[Slot, float]] = OrderedDict()
        """Slot and when it is forgotten; since all linger equally long, the first to go is in front."""

    def __len__(self) -> int:
        """How many keys are kept, those included whose time is over but that no call has met since."""
        return len(self._live) + len(self._lingering)

    def get(self, key: bytes, now: float) -> Slot | None:
        """The slot of `key`, or None."""
        live = self._live.get(key)
        if live is not None:
            return live.slot
        lingering = self._lingering.get(key)
        return lingering[0] if lingering is not None and now < lingering[1] else None

    def get_live(self, key: bytes) -> Slot | None:
        """The slot of `key` if it has live connections, or None."""
        live = self._live.get(key)
        return None if live is None else live.slot

    def connected(self, key: bytes, slot: Slot, now: float, *, is_detour: bool = False) -> bool:
        """A connection with `key` is on its way to `slot`. Whether it is counted; if so, it is owed `given_up`, or
        `taken` and then `ended`.

        `is_detour`: its own slot could not take it. Then a key stays if that slot's worker has connections of it.
        Otherwise a key comes to another slot than it has only if that one is gone.
        """
        self._forget_expired(now)
        live = self._live.get(key)
        if live is None:
            if self._lingering.pop(key, None) is None and len(self) >= self._limit:
                if not self._lingering:
                    return False
                self._lingering.popitem(last=False)
            live = self._live[key] = _Live(slot)
        elif not is_detour:
            if live.slot != slot:
                live.taken.pop(live.slot, None)
                live.slot = slot
        elif live.slot not in live.taken:
            live.slot = slot
        live.coming += 1
        return True

    def taken(self, key: bytes, slot: Slot) -> None:
        """The worker of `slot` has a connection that was counted under `key` as on its way."""
        live = self._live.get(key)
        if live is None:
            return
        live.coming -= 1
        live.taken[slot] = live.taken.get(slot, 0) + 1
        if live.slot not in live.taken:
            live.slot = slot

    def given_up(self, key: bytes, now: float) -> None:
        """A connection that was counted under `key` is not on its way any more, and was not taken."""
        self._forget_expired(now)
        live = self._live.get(key)
        if live is None:
            return
        live.coming -= 1
        self._settle(key, live, now)

    def ended(self, key: bytes, slot: Slot, now: float) -> None:
        """A connection with `key` that the worker of `slot` had taken is over."""
        self._forget_expired(now)
        live = self._live.get(key)
        if live is None or slot not in live.taken:
            return
        live.taken[slot] -= 1
        if not live.taken[slot]:
            del live.taken[slot]
        self._settle(key, live, now)

    def _settle(self, key: bytes, live: _Live, now: float) -> None:
        """One is gone: the key lingers if it was the last, and goes where most of the others are if none is left."""
        if live.taken:
            if live.slot not in live.taken:
                live.slot = max(live.taken, key=live.taken.__getitem__)
        elif not live.coming:
            del self._live[key]
            self._lingering[key] = (live.slot, now + self._linger)

    def _forget_expired(self, now: float) -> None:
        # Each key is forgotten once, so the loop is paid for by the call that made it linger.
        while self._lingering:
            key, (_, until) = next(iter(self._lingering.items()))
            if now < until:
                return
            del self._lingering[key]
