"""The fields of one session in use: a mapping that knows what is stored, and so what has to be saved. `Fields`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

from stickygw.errors import SessionValueError
from stickygw.sessions.values import MAX_FIELDS, check_name, is_immutable, pack, unpack

_UNKNOWN = b""
"""In the place of stored bytes after a failed write: whatever is packed differs from it, so it is written
again."""


class Writer(Protocol):
    """One of several who write to the same fields, each for itself."""

    def taken_back(self, shared: Fields, fields: Collection[str]) -> None:
        """Another writer is about to roll these back, and with them what this one has written there."""


class Fields(MutableMapping[str, Any]):
    """Reading and assigning never wait. Who saves them asks what changed, and says what became of it.

    Values: see `values.pack`; assigning anything else raises `SessionValueError`.
    """

    def __init__(self) -> None:
        # What the store has, as far as we know.
        self._stored: dict[str, bytes] = {}
        # Values in use: assigned, or unpacked when first read. Those that can change in place are compared when
        # they are saved.
        self._live: dict[str, Any] = {}
        self._assigned: set[str] = set()
        self._removed: set[str] = set()
        # What was stored where it is unknown now; None: nothing.
        self._last_known: dict[str, bytes | None] = {}
        self.writers: WeakSet[Writer] = WeakSet()
        """Are told of each roll-back, until they are gone."""

    # The mapping

    def __getitem__(self, field: str) -> Any:
        if field in self._live:
            return self._live[field]
        if field in self._removed:
            raise KeyError(field)
        value = unpack(field, self._stored[field])
        self._live[field] = value
        return value

    def __setitem__(self, field: str, value: Any) -> None:
        self._check_room_for(field)
        pack(field, value)
        self._live[field] = value
        self._assigned.add(field)
        self._removed.discard(field)

    def __delitem__(self, field: str) -> None:
        if field not in self:
            raise KeyError(field)
        self._live.pop(field, None)
        self._assigned.discard(field)
        # Even one that is not stored: it may be on its way into the store right now.
        self._removed.add(field)

    def __contains__(self, field: object) -> bool:
        return field in self._live or (field in self._stored and field not in self._removed)

    def __iter__(self) -> Iterator[str]:
        yield from [field for field in self._stored if field not in self._removed]
        yield from [field for field in self._live if field not in self._stored]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def is_dirty(self) -> bool:
        """Whether something has to be saved."""
        changed, refused = self._changes()
        return bool(changed or refused or self._removals())

    # Another process goes on with it

    def carried(self) -> tuple[dict[str, bytes], dict[str, bytes | None]]:
        """What is stored, packed, as far as that is known, and what has to be saved; None: to be removed."""
        changed, refused = self._changes()
        unsaved: dict[str, bytes | None] = {**changed, **dict.fromkeys(self._removals())}
        known = {field: packed for field, packed in self._stored.items() if packed != _UNKNOWN and field not in refused}
        return known, unsaved

    def carry_on(self, stored: Mapping[str, bytes], unsaved: Mapping[str, bytes | None]) -> None:
        """Be what `carried` has said in another process."""
        self._stored.update(stored)
        self.write_unsaved(unsaved)

    def write_unsaved(self, unsaved: Mapping[str, bytes | None]) -> None:
        """Write here what another process could not save any more. Raises `SessionValueError`: there is no room."""
        for field, packed in unsaved.items():
            if packed is None:  # first: they make room
                self.pop(field, None)
        for field, packed in unsaved.items():
            if packed is not None:
                self[field] = unpack(field, packed)

    def not_overwritten(
        self, unsaved: Mapping[str, bytes | None], before: Mapping[str, bytes | None]
    ) -> dict[str, bytes | None]:
        """What of `unsaved` is news, when the same process has said `before` already: but where we have written since,
        ours is newer."""
        ours = {field for field in self.changes_of(unsaved) if self.packed(field) != before.get(field, _UNKNOWN)}
        news = {field: packed for field, packed in unsaved.items() if before.get(field, _UNKNOWN) != packed}
        return {field: packed for field, packed in news.items() if field not in ours}

    # What has to be saved

    def changes_of(self, fields: Collection[str]) -> set[str]:
        """Those of `fields` that have to be saved."""
        changed, refused = self._changes()
        return {field for field in fields if field in changed or field in refused} | (self._removals() & set(fields))

    def packed(self, field: str) -> bytes | None:
        """The value of `field` as it would be saved; None: there is none, or it can't be packed any more."""
        try:
            return pack(field, self[field]) if field in self else None
        except SessionValueError:
            return None

    def roll_back(self, fields: Collection[str], by: Writer) -> None:
        """Give up what was written to `fields` and is not saved: what was stored, as far as we know, stands again.

        Of a write that was not answered the store may have it all the same: it is due to be loaded again.
        """
        for writer in self.writers:
            if writer is not by:
                writer.taken_back(self, fields)
        for field in fields:
            stored = self._stored.get(field)
            self._stand_again(field, self._last_known.pop(field, None) if stored == _UNKNOWN else stored)

    def _stand_again(self, field: str, stored: bytes | None) -> None:
        """Assign what is stored: another's write that is under way right now may have what was given up."""
        self._live.pop(field, None)
        self._assigned.discard(field)
        self._removed.discard(field)
        if stored is None:
            self._stored.pop(field, None)
            self._removed.add(field)
            return
        self._stored[field] = stored
        with suppress(SessionValueError):  # another program's bytes
            value = unpack(field, stored)
            if pack(field, value) == stored:  # or it would have to be saved
                self._live[field] = value
                self._assigned.add(field)

    def _changes(self) -> tuple[dict[str, bytes], dict[str, SessionValueError]]:
        """The packed values that differ from what is stored, and the fields that can't be packed any more."""
        changed: dict[str, bytes] = {}
        refused: dict[str, SessionValueError] = {}
        for field, value in self._live.items():
            if field not in self._assigned and is_immutable(value):
                continue
            try:
                packed = pack(field, value)
            except SessionValueError as error:
                refused[field] = error
                continue
            if packed != self._stored.get(field):
                changed[field] = packed
        return changed, refused

    def _removals(self) -> set[str]:
        return self._removed & self._stored.keys()

    def _is_changed(self, field: str) -> bool:
        """Whether `field` was written to since it was stored."""
        if field in self._assigned or field in self._removed:
            return True
        if field not in self._live or is_immutable(self._live[field]):
            return False
        try:
            return pack(field, self._live[field]) != self._stored.get(field)
        except SessionValueError:
            return True

    def _give_up_refused(self) -> SessionValueError | None:
        """Forget values that cannot be packed any more: each would fail the flushes of all who share the session.

        What is stored takes their place, or nothing. The first one's error.
        """
        _, refused = self._changes()
        for field in refused:
            del self._live[field]
            self._assigned.discard(field)
            if self._stored.get(field, _UNKNOWN) == _UNKNOWN:
                self._removed.add(field)
        return next(iter(refused.values()), None)

    def _check_room_for(self, field: str) -> None:
        check_name(field)
        if field not in self and len(self) >= MAX_FIELDS:
            raise SessionValueError(f"a session keeps at most {MAX_FIELDS} fields")

    # What became of it

    def _take_as_stored(self, changed: Mapping[str, bytes], removed: Collection[str]) -> None:
        """This was written; what the application did since stays to be saved."""
        self._stored.update(changed)
        for field in removed:
            self._stored.pop(field, None)
        self._removed.difference_update(removed)
        self._learnt(*changed, *removed)

    def _take_as_unknown(self, changed: Mapping[str, bytes], removed: Collection[str], assigned: set[str]) -> None:
        """This was written or not: it is to be written again. `assigned`: what was, when it was about to be written."""
        for field in [*changed, *removed]:
            if self._stored.get(field) != _UNKNOWN:
                self._last_known[field] = self._stored.get(field)
            self._stored[field] = _UNKNOWN
        self._assigned |= assigned & self._live.keys()
        self._removed |= changed.keys() - self._live.keys()  # given up meanwhile

    def _take_loaded(self, stored: dict[str, bytes]) -> None:
        """All this is stored, and nothing else. What is to be saved survives.

        Objects that handlers hold stay the session's own where nobody else wrote to their field.
        """
        changed, refused = self._changes()
        self._live = {
            field: value
            for field, value in self._live.items()
            if field in changed or field in refused or stored.get(field) == self._stored.get(field)
        }
        self._removed &= self._stored.keys() & stored.keys()
        self._stored = stored
        self._assigned &= self._live.keys()
        self._last_known.clear()

    def _take_value(self, field: str, packed: bytes | None) -> None:
        """This is stored in `field`, or nothing. The value in use is given up, unless it is to be saved."""
        if not self._is_changed(field):
            self._live.pop(field, None)
        if packed is None:
            self._stored.pop(field, None)
        else:
            self._stored[field] = packed
        self._learnt(field)

    def _learnt(self, *fields: str) -> None:
        for field in fields:
            self._last_known.pop(field, None)
