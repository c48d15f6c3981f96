"""What one request has written to the fields that all requests of its client share: `OwnWrites`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from stickygw.sessions.fields import Fields
from stickygw.sessions.values import is_immutable


class OwnWrites:
    """A `Writer`: so a request saves, and is refused for, what it has done itself."""

    __slots__ = ("__weakref__", "_lost", "_touched")

    def __init__(self) -> None:
        # The fields that it has written, and those it has read whose value can change in place: packed, as it was then.
        self._touched: dict[str, bytes | None] = {}
        self._lost: set[str] = set()

    def wrote(self, shared: Fields, field: str) -> None:
        """It has assigned to `field`, or deleted it."""
        self._touch(shared, field, None)

    def read(self, shared: Fields, field: str, value: Any) -> None:
        """It has got `value`, and may change it in place from now on."""
        if field not in self._touched and not is_immutable(value):
            self._touch(shared, field, shared.packed(field))

    def _touch(self, shared: Fields, field: str, before: bytes | None) -> None:
        self._touched[field] = before
        self._lost.discard(field)
        shared.writers.add(self)

    def unsaved(self, shared: Fields) -> set[str]:
        """The fields that have to be saved for it, or would have to be if nobody had taken them back."""
        return self._lost | self._changed(shared)

    def _changed(self, shared: Fields) -> set[str]:
        if not self._touched:
            return set()
        return {field for field in shared.changes_of(self._touched) if not self._is_as_before(shared, field)}

    def _is_as_before(self, shared: Fields, field: str) -> bool:
        before = self._touched[field]
        return before is not None and before == shared.packed(field)

    def saved(self, shared: Fields) -> set[str]:
        """It was saved, but for what it has written since, and for the fields that are returned: another has taken
        them back."""
        lost, self._lost = self._lost, set()
        unsaved = self._changed(shared)
        for field in [field for field in self._touched if field not in unsaved]:
            if field not in shared or is_immutable(shared[field]):
                del self._touched[field]
            else:
                self._touched[field] = shared.packed(field)
        return lost

    def roll_back(self, shared: Fields) -> bool:
        """Give up what is not saved of it; whether that was anything."""
        changed = self._changed(shared)
        if changed:
            shared.roll_back(changed, by=self)
        self.forget()
        return bool(changed)

    def forget(self) -> None:
        """Begin anew."""
        self._touched.clear()
        self._lost.clear()

    def taken_back(self, shared: Fields, fields: Collection[str]) -> None:
        """See `Writer.taken_back`."""
        self._lost |= self._changed(shared) & set(fields)
