"""Highest random weight hashing: which slot a key belongs to, without state, the same on every machine.

When a slot comes or goes only its own keys move (Thaler, Ravishankar: Using name-based mappings to increase
hit rates, 1998). Bounded loads (Mirrokni, Thorup, Zadimoghaddam: Consistent hashing with bounded loads,
2016) keep an unlucky slot from much more than its share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import ceil

from stickygw.types import Slot

LOAD_FACTOR = 1.25
"""How far above the mean a slot's load may be before it is passed over for a new key."""


def weight(key: bytes, slot: Slot) -> bytes:
    """The weight of `slot` for `key`: 8 bytes, to be compared as they are."""
    # The digits and the colon keep pairs apart: no key and slot read like another key and slot.
    return blake2b(b"%d:%b" % (slot, key), digest_size=8).digest()


def owner(key: bytes, slots: Iterable[Slot]) -> Slot:
    """The first of `ranked`. Raises `ValueError` for no slots."""
    return max(slots, key=lambda slot: (weight(key, slot), slot))


def ranked(key: bytes, slots: Iterable[Slot]) -> list[Slot]:
    """`slots`, best for `key` first."""
    return sorted(slots, key=lambda slot: (weight(key, slot), slot), reverse=True)


def pick_bounded(key: bytes, loads: Mapping[Slot, int], *, factor: float = LOAD_FACTOR) -> tuple[Slot, bool]:
    """The best slot for a new `key` whose load stays within `factor` of the mean, and whether a better one
    was passed over.

    `loads` has each slot's load without the new key, and is not empty; `factor` is over 1, so one always
    has room.
    """
    most = ceil(factor * (sum(loads.values()) + 1) / len(loads))
    order = ranked(key, loads)
    for slot in order:
        if loads[slot] < most:
            return slot, slot != order[0]
    raise AssertionError("every load is over the mean")
