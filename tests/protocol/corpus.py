"""The opening corpus: one request head a file, as it stands on the wire, and what has to become of it.

The file's name says it. In ``invalid``: STATUS-REASON-what.head; 0 is a close without a word, 408 a head that never
becomes complete. In ``valid``: ``websocket`` gets 101, ``plain`` an answer of the application; ``handshake_400`` and
``handshake_403`` are good requests, which the worker refuses for what they ask: an unreadable offer, another origin.

CVEs of this kind of server that have no head here are about other things: session ids that can be guessed
(CVE-2017-16031; ids are of `secrets`, see the session tests), secrets compared in variable time (CVE-2021-33880;
`hmac.compare_digest`, see the cookie's), and frames and messages (beside this: `test_frames_live`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HEADS = Path(__file__).parent / "heads"

HEADER_TIMEOUT = "header_timeout"
"""The reason in the name of a head that is not complete: the primary's own, for the gate never gives it."""


@dataclass(frozen=True)
class Case:
    """One file. `group` is all that its name says of the verdict, and `reason` the gate's word for it ("": valid)."""

    name: str
    group: str
    status: int
    reason: str
    data: bytes

    @property
    def is_valid(self) -> bool:
        """Whether the gate lets it through."""
        return not self.reason

    @property
    def is_websocket(self) -> bool:
        """Whether it is a WebSocket handshake that the gate lets through."""
        return self.is_valid and self.group != "plain"

    @property
    def is_unfinished(self) -> bool:
        """Whether the gate waits for more."""
        return self.reason == HEADER_TIMEOUT


def _case(file: Path) -> Case:
    first, second, *_ = file.stem.split("-")
    if file.parent.name == "invalid":
        return Case(file.stem, f"{first}-{second}", int(first), second, file.read_bytes())
    status = {"websocket": 101, "plain": 200, "handshake_400": 400, "handshake_403": 403}[first]
    return Case(file.stem, first, status, "", file.read_bytes())


CASES = [_case(file) for file in sorted(HEADS.glob("*/*.head"))]
VALID = [case for case in CASES if case.is_valid]
UNFINISHED = [case for case in CASES if case.is_unfinished]
REFUSED = [case for case in CASES if not case.is_valid and not case.is_unfinished]
