"""One match: who flies which ship, what they want it to do, and what everybody is told. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgpack
from arena import Arena
from ship import DRIFTING, Controls

MAX_PLAYERS = 16

AWAY_SECONDS = 30.0
"""How long a ship drifts without its player. Shorter than the gateway's ``key_linger``, so that the match is still in
its slot when they come back."""

IDLE_SECONDS = 300.0
"""How long a ship drifts whose player is connected and does nothing. To send inputs is to do nothing if they say no
more than that no key is down: a page does that all the time."""

MAX_WAITING = 2
"""Inputs of one player that wait for their tick. Of more, the oldest are dropped: a ship does not answer late for ever
because something has stalled once."""

HELD_TICKS = 10
"""For so long the last input counts on when no further one comes: a late packet is no jerk, a lost player no rocket."""

HEARD_A_SECOND = 100
"""So many messages of one player are forgotten every second; a page sends 21."""

MAX_HEARD = 1000
"""Messages of one player that are not forgotten: a page's of over 40 seconds, which come at once when a tunnel ends."""

MAX_SEQUENCE = 2**53
"""Beyond it JavaScript can't count."""

FORMAT = 1
"""Of `Match.packed`. One more whenever it changes: a match of another format is not read."""


@dataclass(slots=True)
class Player:
    """`last_sequence` is that of the last input which has moved the ship; `heard` counts messages,
    less `HEARD_A_SECOND`. `away_seconds`: without a connection; `idle_seconds`: without an input that does anything."""

    ship: int
    name: str
    last_sequence: int = 0
    controls: Controls = DRIFTING
    quiet_ticks: int = 0
    away_seconds: float = 0.0
    idle_seconds: float = 0.0
    heard: float = 0.0
    waiting: deque[tuple[int, Controls]] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))

    @property
    def newest_sequence(self) -> int:
        """Of all inputs so far: the next one has to be higher."""
        return self.waiting[-1][0] if self.waiting else self.last_sequence

    def steer(self, sequence: int, controls: Controls) -> None:
        """An input for the next free tick. One that is not newer than those before it is dropped."""
        if self.newest_sequence < sequence <= MAX_SEQUENCE:
            self.waiting.append((sequence, controls))
            if controls != DRIFTING:
                self.idle_seconds = 0.0

    def next_controls(self) -> Controls:
        """What counts in this tick: the next input, else the last one for a while."""
        if self.waiting:
            self.last_sequence, self.controls = self.waiting.popleft()
            self.quiet_ticks = 0
        else:
            self.quiet_ticks += 1
            if self.quiet_ticks > HELD_TICKS:
                self.controls = DRIFTING
        return self.controls


class MatchFull(Exception):
    """It has `MAX_PLAYERS`."""


class Match:
    """Players by session id: who comes back has the same ship and the same score."""

    def __init__(self) -> None:
        self.arena = Arena()
        self.players: dict[str, Player] = {}

    def join(self, session: str, name: str) -> Player:
        """The player of that session, with the ship it left or a new one. Raises `MatchFull`."""
        player = self.players.get(session)
        if player is None:
            if len(self.players) >= MAX_PLAYERS:
                raise MatchFull
            player = self.players[session] = Player(self.arena.add_ship().id, name)
        player.name = name
        player.away_seconds = player.idle_seconds = 0.0
        return player

    def step(self) -> None:
        """One tick."""
        self.arena.step({player.ship: player.next_controls() for player in self.players.values()})

    def noted(self, present: Collection[str], *, seconds: float) -> list[str]:
        """`seconds` have passed in which the sessions in `present` were here: ships that have drifted too long go, and
        so do those of players who are here and asleep.

        The names of those that have left are returned.
        """
        gone = []
        for session, player in self.players.items():
            player.away_seconds = 0.0 if session in present else player.away_seconds + seconds
            player.idle_seconds += seconds
            player.heard = max(0.0, player.heard - HEARD_A_SECOND * seconds)
            if player.away_seconds >= AWAY_SECONDS or player.idle_seconds >= IDLE_SECONDS:
                gone.append(session)
        return [self._leave(session) for session in gone]

    def _leave(self, session: str) -> str:
        player = self.players.pop(session)
        self.arena.remove_ship(player.ship)
        return player.name

    def snapshot(self) -> dict[str, Any]:
        """What everybody is told after each tick: ships as [id, x, y, vx, vy, angle, health, score, last input],
        shots as [x, y, vx, vy]. Of a ship without its player the last input is that of the player who left it."""
        ships, arena = [], self.arena
        for player in self.players.values():
            ship = arena.ships[player.ship]
            row = [ship.id, ship.x, ship.y, ship.vx, ship.vy, ship.angle, ship.health, ship.score]
            ships.append([*row, player.last_sequence])
        return {"type": "snapshot", "tick": arena.tick, "ships": ships, "shots": [_seen(shot) for shot in arena.shots]}

    def roster(self) -> dict[str, Any]:
        """Who is called what: told when somebody comes or goes."""
        return {"type": "roster", "names": [[player.ship, player.name] for player in self.players.values()]}

    def scores(self) -> dict[str, tuple[str, int]]:
        """Name and score of each session's player."""
        ships = self.arena.ships
        return {session: (player.name, ships[player.ship].score) for session, player in self.players.items()}

    def packed(self) -> bytes:
        """The whole match, for a checkpoint or another process. Inputs that still wait are not in it, nor for how long
        who is here has done nothing."""
        players = [
            [session, player.ship, player.name, player.last_sequence, player.away_seconds]
            for session, player in self.players.items()
        ]
        data: bytes = msgpack.packb([FORMAT, self.arena.packed(), players])
        return data

    @classmethod
    def unpacked(cls, data: bytes) -> Match:
        """The match that `packed` made `data` of. Raises `ValueError` for anything else."""
        try:
            format, *rest = msgpack.unpackb(data)
            if format != FORMAT:
                raise ValueError(f"of another format than {FORMAT}")
            arena, players = rest
            match = cls()
            match.arena = Arena.unpacked(arena)
            for session, ship, name, last_sequence, away_seconds in players:
                match.players[session] = Player(ship, name, last_sequence, away_seconds=away_seconds)
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"no match is in these {len(data)} bytes: {error}") from error
        return match


def _seen(shot: Any) -> list[float]:
    return [shot.x, shot.y, shot.vx, shot.vy]
