"""One picture of ``top``: the gateway above, its workers, and at the bottom the keys and the news."""

from __future__ import annotations

from rich.console import Group
from rich.layout import Layout
from rich.text import Text

from stickygw.cli.tables import head, notes, rows, workers
from stickygw.wire.status import Status

KEYS_LINE = "r reload   + - scale   d drain a slot   q quit"
_HEAD_LINES = 4
_FOOT_LINES = 2
NOTES_SHARE = 0.25
"""Of the lines between head and foot, where workers and notes do not all fit."""


def screen(status: Status, news: Text, *, height: int) -> Layout:
    """The picture for a terminal of `height` lines: what does not fit is counted, not scrolled."""
    layout = Layout()
    layout.split_column(
        Layout(Group(*map(_cut, head(status))), size=_HEAD_LINES),
        Layout(_body(status, height - _HEAD_LINES - _FOOT_LINES)),
        Layout(Group(Text(KEYS_LINE, style="reverse"), _cut(news)), size=_FOOT_LINES),
    )
    return layout


def _body(status: Status, height: int) -> Group:
    found, remarks = rows(status), notes(status)
    room = max(0, height - 1)  # the table has a head of its own
    for_notes = min(len(remarks), max(room - len(found), int(room * NOTES_SHARE)))
    shown = found
    if len(found) > room - for_notes:
        shown = found[: max(0, room - for_notes - 1)]
    more = [Text(f"… and {len(found) - len(shown)} more")] if len(shown) < len(found) else []
    return Group(workers(shown), *more, *map(_cut, remarks[:for_notes]))


def _cut(line: Text) -> Text:
    line.no_wrap = True
    line.overflow = "ellipsis"
    return line
