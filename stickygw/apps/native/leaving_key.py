"""One affinity key that leaves a worker, as `LeavingKeys` knows it: `Key`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from stickygw.apps.native.connection import Connection


class Step(Enum):
    """How far it has come."""

    LISTED = auto()  # the other side knows of it
    RESTING = auto()  # its connections come to rest
    LEAVING = auto()  # ``on_key_out`` runs
    SENT = auto()
    TAKEN = auto()  # it is the other side's; its connections follow
    RETURNING = auto()  # ``on_key_in`` runs here
    STAYS = auto()


AWAY = frozenset({Step.LEAVING, Step.SENT, Step.TAKEN, Step.RETURNING})
"""Nothing of its connections may be handled here."""


@dataclass(slots=True, eq=False)
class Key:
    """`until` (the loop's time): its connections come to rest, or the answer comes."""

    key: bytes
    step: Step = Step.LISTED
    until: float = 0.0
    connections: set[Connection] = field(default_factory=set)  # those that are here, and held with it
    kept: set[Connection] = field(default_factory=set)  # those of them that cannot go with it
    values: list[object] = field(default_factory=list)
    size: int = 0
