"""The ticks of examples/game as a worker has them, in its event loop and by its schedule, and nothing else: no players,
no sockets, and no Redis, which a worker gives checkpoints, claims and its list once a second.

``python -m benchmarks.ticks MATCHES SHIPS SECONDS`` prints a JSON list: how late each tick began, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from stickygw import App, Tick
from stickygw.testing import AppClient

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "game"))

from match import Match
from pilot import hunt
from ship import STEP_SECONDS, Controls


async def run(matches: int, ships: int, seconds: float) -> list[float]:
    """The pilots are those of the bots; they see each snapshot at once, and steer for the next tick."""
    app, played, lates = App(codec="msgpack"), [Match() for _ in range(matches)], []
    for match in played:
        for number in range(ships):
            match.join(f"session {number}", f"pilot {number}")

    @app.every(seconds=STEP_SECONDS)
    def advance(tick: Tick) -> None:
        lates.append(tick.late_seconds)
        told = {"late": round(tick.late_seconds * 1000, 2), "skipped": tick.skipped, "slot": app.slot}
        for match in played:
            match.step()
            snapshot = match.snapshot() | told
            app.codec.encode(snapshot)
            seen = {row[0]: row for row in snapshot["ships"]}
            for player in match.players.values():
                player.steer(player.last_sequence + 1, Controls(*hunt(player.ship, seen)))

    async with AppClient(app):
        await asyncio.sleep(seconds)
    return lates


if __name__ == "__main__":
    matches, ships, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(matches, ships, seconds))))
