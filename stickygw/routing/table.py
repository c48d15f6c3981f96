"""Which slot an affinity key has now: bounded memory of keys in use, before the hash has its say.

It is what keeps a key in place when the hash would move it: after scaling, or when bounded loads chose
another slot. And it is all that knows where an id leads that an application has minted: its hash says nothing of that.
"""

from __future__ import annotations

from collections import OrderedDict

from stickygw.types import Slot

DEFAULT_LIMIT = 100_000

LEARNT_SECONDS = 3600.0
"""How long a learnt id that nobody uses is known. The official MCP server ends a session that was idle for half an
hour, Engine.IO one for less than a minute: whoever comes back later than this is told to begin anew anyhow."""


class _Live:
    """A key in use: its slot, how many connections are on their way, and how many each slot's worker has.

    `is_learnt`: the slot is that of the worker that minted it, whatever its connections do.
    """

    __slots__ = ("coming", "is_learnt", "slot", "taken")

    def __init__(self, slot: Slot, *, is_learnt: bool = False) -> None:
        self.slot = slot
        self.is_learnt = is_learnt
        self.coming = 0
        self.taken: dict[Slot, int] = {}


class KeyTable:
    """Key → slot, at most `limit` keys. `now` never goes back.

    An entry lives while its key has live connections, and `linger` seconds after the last has ended. Its slot is one
    where a worker has connections of the key, if there is any: those who only wait for a slot keep nobody there.
    Nor do those in a slot that is gone, from which all come back: they meet where the first of them went.

    A learnt key belongs to the slot where it was minted, wherever its connections had to go meanwhile, until that slot
    is gone. It is known for `LEARNT_SECONDS` after it was minted or its last connection has ended.

    When the table is full a new key takes the place of the one that lingers longest. Where none lingers a learnt one
    takes that of the learnt one that is unused longest; any other is not kept, and goes where the hash says: what
    clients make up pushes out nothing that was learnt. Every call takes constant time, amortised.
    """

    __slots__ = ("_learnt", "_limit", "_linger", "_lingering", "_live")

    def __init__(self, limit: int = DEFAULT_LIMIT, *, linger: float) -> None:
        self._limit = limit
        self._linger = linger
        self._live: dict[bytes, _Live] = {}
        self._lingering: OrderedDict[bytes, tuple[Slot, float]] = OrderedDict()
        """Slot and when it is forgotten; since all linger equally long, the first to go is in front."""
        self._learnt: OrderedDict[bytes, tuple[Slot, float]] = OrderedDict()
        """The same, of learnt keys without connections."""

    def __len__(self) -> int:
        """How many keys are kept, those included whose time is over but that no call has met since."""
        return len(self._live) + len(self._lingering) + len(self._learnt)

    def get(self, key: bytes, now: float) -> Slot | None:
        """The slot of `key`, or None."""
        live = self._live.get(key)
        if live is not None:
            return live.slot
        unused = self._learnt.get(key) or self._lingering.get(key)
        return unused[0] if unused is not None and now < unused[1] else None

    def get_live(self, key: bytes) -> Slot | None:
        """The slot of `key` if it has live connections, or None."""
        live = self._live.get(key)
        return None if live is None else live.slot

    def learn(self, key: bytes, slot: Slot, now: float) -> bool:
        """The worker of `slot` has minted `key`: it leads there from now on. Whether it is kept."""
        self._forget_expired(now)
        live = self._live.get(key)
        if live is not None:
            live.slot, live.is_learnt = slot, True
            return True
        self._lingering.pop(key, None)
        self._learnt.pop(key, None)
        if not self._make_room(self._lingering, self._learnt):
            return False
        self._learnt[key] = (slot, now + LEARNT_SECONDS)
        return True

    def connected(self, key: bytes, slot: Slot, now: float, *, is_detour: bool = False) -> bool:
        """A connection with `key` is on its way to `slot`. Whether it is counted; if so, it is owed `given_up`, or
        `taken` and then `ended`.

        `is_detour`: its own slot could not take it. Then a key stays if it was learnt there, or if that slot's worker
        has connections of it. Otherwise a key comes to another slot than it has only if that one is gone, and with it
        what a learnt key stood for.
        """
        self._forget_expired(now)
        live = self._live.get(key)
        if live is None:
            learnt = self._learnt.pop(key, None)
            if learnt is not None:
                live = _Live(learnt[0], is_learnt=True)
            elif self._lingering.pop(key, None) is not None or self._make_room(self._lingering):
                live = _Live(slot)
            else:
                return False
            self._live[key] = live
        if not is_detour:
            if live.slot != slot:
                live.taken.pop(live.slot, None)
                live.slot, live.is_learnt = slot, False
        elif live.slot not in live.taken and not live.is_learnt:
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
        if live.slot not in live.taken and not live.is_learnt:
            live.slot = slot

    def adopt(self, key: bytes, slot: Slot, now: float) -> bool:
        """The worker of `slot` has a connection with `key` since before this table was made. Whether it is counted; if
        so, it is owed `ended`."""
        if not self.connected(key, slot, now, is_detour=True):
            return False
        self.taken(key, slot)
        return True

    def moved(self, key: bytes, old: Slot, new: Slot, now: float) -> None:
        """A connection with `key` that the worker of `old` had taken has that of `new` now.

        Its slot is the one that its connections go to, from the first on: those that come meet them there. A learnt key
        stays with the worker that minted it. Whether the connection is known at `old` does not matter: who came to
        another slot when `old` was gone made the table forget those there.
        """
        self._forget_expired(now)
        live = self._live.get(key)
        if live is None:
            known = self._learnt.pop(key, None)
            if known is None and self._lingering.pop(key, None) is None and not self._make_room(self._lingering):
                return
            live = self._live[key] = _Live(new) if known is None else _Live(known[0], is_learnt=True)
        if live.taken.get(old):
            live.taken[old] -= 1
            if not live.taken[old]:
                del live.taken[old]
        live.taken[new] = live.taken.get(new, 0) + 1
        if not live.is_learnt and (live.slot == old or live.slot not in live.taken):
            live.slot = new

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
            if live.slot not in live.taken and not live.is_learnt:
                live.slot = max(live.taken, key=live.taken.__getitem__)
        elif not live.coming:
            del self._live[key]
            if live.is_learnt:
                self._learnt[key] = (live.slot, now + LEARNT_SECONDS)
            else:
                self._lingering[key] = (live.slot, now + self._linger)

    def _make_room(self, *unused: OrderedDict[bytes, tuple[Slot, float]]) -> bool:
        """Whether there is room for one more, if need be in place of the first of the first of these with any."""
        if len(self) < self._limit:
            return True
        for keys in unused:
            if keys:
                keys.popitem(last=False)
                return True
        return False

    def _forget_expired(self, now: float) -> None:
        # Each key is forgotten once, so the loop is paid for by the call that left it unused.
        for keys in (self._lingering, self._learnt):
            while keys:
                key, (_, until) = next(iter(keys.items()))
                if now < until:
                    break
                del keys[key]
