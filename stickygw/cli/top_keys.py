"""What keys mean in ``top``: each gives an order to the gateway, or is a part of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ESCAPE = "\x1b"
ENTER = ("\r", "\n")
BACKSPACE = ("\x7f", "\x08")
MAX_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Order:
    """A request to the gateway."""

    do: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.do, *map(str, self.arguments.values())])


class Keys:
    """The keyboard of ``top``. `is_over` once the user wants to leave."""

    def __init__(self) -> None:
        self.is_over = False
        self._digits: str | None = None

    @property
    def prompt(self) -> str | None:
        """The question that is being answered, if there is one."""
        return None if self._digits is None else f"drain slot: {self._digits}_  (Esc: none)"

    def press(self, key: str, *, slots: int) -> Order | None:
        """The order that `key` completes, in a gateway of `slots` slots."""
        if self._digits is not None:
            return self._answer(key, slots)
        match key:
            case "q":
                self.is_over = True
            case "r":
                return Order("reload")
            case "+" | "=":  # the same key on most keyboards
                return Order("scale", {"slots": slots + 1})
            case "-" if slots > 1:
                return Order("scale", {"slots": slots - 1})
            case "d":
                self._digits = ""
        return None

    def _answer(self, key: str, slots: int) -> Order | None:
        assert self._digits is not None
        if key.isascii() and key.isdigit() and len(self._digits) < MAX_DIGITS:
            self._digits += key
            if slots <= 10:  # one digit says it all
                return self._drain()
        elif key in BACKSPACE:
            self._digits = self._digits[:-1]
        elif key in ENTER and self._digits:
            return self._drain()
        elif key in (ESCAPE, "q", *ENTER):
            self._digits = None
        return None

    def _drain(self) -> Order:
        assert self._digits is not None
        slot, self._digits = int(self._digits), None
        return Order("drain", {"slot": slot})
