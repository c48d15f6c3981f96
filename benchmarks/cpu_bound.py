"""How much of what bare Python processes gain on CPU-bound work several workers keep."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import Any

from support.gateway import ROOT

from benchmarks.measure import ROUNDS, figure
from stickygw.config.cpus import available_cpus
from stickygw.testing import Gateway

sys.path.insert(0, str(ROOT / "examples" / "cpu_bound"))  # the demo's own measurements

import compare

WORK_SECONDS = 0.025
SECONDS = 1.6
"""Of each measurement. A round has four, in turns: one and all, bare processes and workers."""


def run() -> dict[str, Any]:
    """The speed-up of one worker for each CPU against one worker, that of as many bare processes, and their ratio."""
    workers = available_cpus()
    limit = compare.limit_for(WORK_SECONDS)
    gains, bare_gains = [], []
    with (
        Gateway(compare.APP, workers=1) as one,
        Gateway(compare.APP, *compare.IN_TURNS, workers=workers) as many,
    ):
        for _ in range(ROUNDS):
            alone, _ = compare.bare(limit, processes=1, seconds=SECONDS)
            single = rate(one, limit, workers)
            together, _ = compare.bare(limit, processes=workers, seconds=SECONDS)
            gains.append(rate(many, limit, workers) / single)
            bare_gains.append(together / alone)
    kept = [gain / bare for gain, bare in zip(gains, bare_gains, strict=True)]
    return {"gain": asdict(figure(gains)), "bare_gain": asdict(figure(bare_gains)), "kept": asdict(figure(kept))}


def rate(gateway: Gateway, limit: int, workers: int) -> float:
    clients = compare.CLIENTS_PER_WORKER * workers
    seen = asyncio.run(compare.load(gateway, "/inline", limit, clients=clients, seconds=SECONDS))
    return seen.per_second
