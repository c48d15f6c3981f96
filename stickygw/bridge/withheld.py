"""What members must not get here, since they had it before they moved here: `Withheld`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from stickygw.bridge.room import Member

MAX_WITHHELD = 1_000_000
"""Pairs of a member with an origin at an address, of which something is still to come that it had: some 100 MB."""

NOBODY: frozenset[Member] = frozenset()

_Place = tuple[str, bytes]


class Withheld:
    """Of each address and origin the members who have had more than has come here, and how much.

    Who leaves an address and joins it again still has had it, so an entry ends only when its number has come, when
    nothing older can come (`forget_until`), or with its member. `owner` is the move that has brought a member.
    """

    def __init__(self, *, max_members: int = MAX_WITHHELD) -> None:
        self._had: dict[_Place, dict[Member, tuple[int, int]]] = {}  # the number, and when it was added
        self._places: dict[Member, set[_Place]] = {}
        self._owners: dict[Member, object] = {}
        self._count = 0
        self._added = 0
        self._max_members = max_members

    def __bool__(self) -> bool:
        return bool(self._had)

    @property
    def is_full(self) -> bool:
        """Whether nobody else can come now."""
        return self._count >= self._max_members

    @property
    def added(self) -> int:
        """How many were added, ever: for `forget_until`."""
        return self._added

    def has(self, member: Member) -> bool:
        """Whether something is still to come that `member` must not get."""
        return member in self._places

    def add(
        self, member: Member, address: str, position: Mapping[bytes, int], here: Mapping[bytes, int], *, owner: object
    ) -> None:
        """`member` came with `position`; so far has come what `here` says."""
        for origin, number in position.items():
            if number > here.get(origin, 0):
                had = self._had.setdefault((address, origin), {})
                self._added += 1
                self._count += member not in had
                had[member] = (number, self._added)
                self._places.setdefault(member, set()).add((address, origin))
                self._owners[member] = owner

    def given(self, address: str, origin: bytes, number: int) -> frozenset[Member]:
        """Who had the one that comes now."""
        had = self._had.get((address, origin))
        if had is None:
            return NOBODY
        given = frozenset(member for member, (last, _) in had.items() if last >= number)
        for member in [member for member, (last, _) in had.items() if last <= number]:
            self._remove(member, (address, origin))
        return given

    def forget(self, member: Member) -> None:
        """It has ended."""
        for place in tuple(self._places.get(member, ())):
            self._remove(member, place)

    def forget_until(self, added: int, *, owner: object, besides: Collection[bytes] = ()) -> None:
        """All has come that could, of what `owner` had added when `added` were, but of these origins."""
        for place, had in tuple(self._had.items()):
            if place[1] in besides:
                continue
            for member, (_, order) in tuple(had.items()):
                if order <= added and self._owners[member] is owner:
                    self._remove(member, place)

    def _remove(self, member: Member, place: _Place) -> None:
        had, places = self._had[place], self._places[member]
        del had[member]
        self._count -= 1
        if not had:
            del self._had[place]
        places.remove(place)
        if not places:
            del self._places[member], self._owners[member]
