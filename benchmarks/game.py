"""How late the ticks of examples/game begin with bots that play, and in processes that do nothing but tick."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from support.game_example import BY_MATCH, GAME, bots
from support.gateway import ROOT, Gateway

from benchmarks.measure import figure, pairs

WORKERS = 2
MATCHES = 10
BOTS_EACH = 10
HZ = 20.0
SECONDS = 7.0
"""Of each side of a pair; each worker has 20 ticks in one."""

ROUNDS = 5
"""Pairs: less than elsewhere, as one takes a quarter of a minute."""


def run() -> dict[str, Any]:
    """Milliseconds, 99th percentiles, and counts, which are to be 0.

    `late` is what the workers say of their ticks, of which each counts once for each bot that was told; `bare_late`
    what the same ticks say without players, their sockets, and what is done once a second with Redis. `gap` is by how
    much the time between two snapshots at a bot was not a tick's, beside `lag`, by which the loop of the bots' own
    process was late: a `gap` that is no larger is theirs. It is not in `late`, which no load generator measures.
    """
    rounds = [one | other for one, other in pairs(with_bots, bare, rounds=ROUNDS)]
    return {name: asdict(figure([measured[name] for measured in rounds])) for name in rounds[0]}


def with_bots() -> dict[str, float]:
    """Through a gateway of its own: in one that has been played in, ships that were left drift for half a minute."""
    with Gateway(GAME, *BY_MATCH, workers=WORKERS) as gateway:
        tally = asyncio.run(bots.run(gateway.url, bots=MATCHES * BOTS_EACH, matches=MATCHES, hz=HZ, seconds=SECONDS))
    return {
        "late_p99_ms": p99(tally.lates),
        "gap_p99_ms": p99(tally.gaps),
        "lag_p99_ms": p99(tally.lags),
        "snapshots_out_of_order": sum(re.search(r"tick \d+ came", wrong) is not None for wrong in tally.violations),
        "violations": len(tally.violations),
        "closes": tally.closes.total(),
    }


def bare() -> dict[str, float]:
    """As many processes as there are workers, each with its share of the matches."""
    command = [sys.executable, "-m", "benchmarks.ticks", str(MATCHES // WORKERS), str(BOTS_EACH), str(SECONDS)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            for _ in range(WORKERS)
        ]
        lates = [late for process in processes for late in json.loads(process.communicate(timeout=60)[0])]
    return {"bare_late_p99_ms": p99(lates)}


def p99(seconds: Sequence[float]) -> float:
    return float(bots.percentile(seconds, 0.99))
