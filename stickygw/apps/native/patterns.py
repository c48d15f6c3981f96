"""Path patterns such as "/ws/{room}": one ``{name}`` is one non-empty segment, percent-decoded once."""

from __future__ import annotations

import re
from urllib.parse import unquote

_PART = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class PathPattern:
    """Matches whole paths. `names` are the parts it captures, in order."""

    __slots__ = ("_regex", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` for a pattern that cannot match or names a part twice."""
        if not text.startswith("/"):
            raise ValueError(f"the path pattern {text!r} does not start with '/'")
        self.text = text
        self.names = _PART.findall(text)
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"the path pattern {text!r} names a part twice")
        literals = _PART.split(text)[::2]
        if any("{" in literal or "}" in literal for literal in literals):
            raise ValueError(f"the path pattern {text!r} has a brace that is no part: write {{name}}")
        expression = re.escape(literals[0])
        for literal in literals[1:]:
            expression += "([^/]+)" + re.escape(literal)
        self._regex = re.compile(expression)

    def match(self, path: str) -> dict[str, str] | None:
        """The captured parts of `path` (as it stands in the request target), or None if it does not match."""
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        return {name: unquote(value) for name, value in zip(self.names, found.groups(), strict=True)}
