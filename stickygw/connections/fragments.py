"""The fragments of one message, until its last one is there (RFC 6455 §5.4): `Fragments`. Pure."""

from __future__ import annotations

MAX_FRAGMENTS = 4096
"""Fragments of one message; tiny ones cost memory (CVE-2026-48779). The `websockets` library has the same bound."""


class Fragments:
    """The payloads so far, of `size` bytes. Whoever adds them has checked their order and bounds their size."""

    __slots__ = ("_payloads", "is_text", "size")

    def __init__(self, *, is_text: bool) -> None:
        self._payloads: list[bytes] = []
        self.is_text = is_text
        self.size = 0

    def add(self, payload: bytes) -> None:
        """Put it behind the others."""
        self._payloads.append(payload)
        self.size += len(payload)

    @property
    def are_too_many(self) -> bool:
        """Whether one more would be over `MAX_FRAGMENTS`."""
        return len(self._payloads) >= MAX_FRAGMENTS

    def joined(self) -> bytes:
        """The whole message."""
        return b"".join(self._payloads)
