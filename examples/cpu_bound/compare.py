"""`make demo-cpu`: what more workers bring when each message costs a CPU some 25 ms, and what `app.offload` brings.

The table is the one that articles about clustering show, one process against one for each CPU. Beside it stands what
as many bare Python processes gain on the same work in the same minute, for that is what the machine can give: two CPUs
that share a core, or its heat, never gain 2.0.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from primes import count_primes

from stickygw.config.cpus import available_cpus
from stickygw.testing import Gateway

HERE = Path(__file__).resolve().parent
APP = f"{HERE / 'app.py'}:app"
IN_TURNS = ("--first-visit", "round_robin", "--set", "slow_start=0")
"""As many clients on each worker, from the first moment on."""
CLIENTS_PER_WORKER = 4
"""So many that a worker hardly ever waits for one, and so few that they cost nothing."""

UNDISTURBED = 0.95
"""Processes that have a CPU for less of the time share it with something else."""


@dataclass
class Load:
    """What clients with one message outstanding each saw: how many seconds each answer took, and when it came."""

    latencies: list[float]
    came: list[float]
    own_cpu: float = 0.0
    """What the clients themselves took of a CPU."""

    @property
    def per_second(self) -> float:
        """Answers a second, from the first to the last."""
        return (len(self.came) - 1) / (max(self.came) - min(self.came))

    @property
    def p50(self) -> float:
        return percentile(self.latencies, 0.50)

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def limit_for(seconds: float) -> int:
    """How far to count primes so that it takes this machine `seconds` at least."""
    limit = 1000
    while min(timed(limit) for _ in range(3)) < seconds:
        limit = limit * 5 // 4
    return limit


def timed(limit: int) -> float:
    """What it takes in CPU time, which other programs do not lengthen."""
    started = time.process_time()
    count_primes(limit)
    return time.process_time() - started


# --- load -------------------------------------------------------------------------------------------------------------


async def load(gateway: Gateway, path: str, message: object, *, clients: int, seconds: float) -> Load:
    """`clients` send `message`, each the next one when the answer to the last has come, for `seconds`."""
    seen = Load([], [])
    all_are_open = asyncio.Barrier(clients)
    text = str(message)

    async def one() -> None:
        async with gateway.connect(path) as connection:
            await all_are_open.wait()
            until = time.perf_counter() + seconds
            while (sent := time.perf_counter()) < until:
                await connection.send(text)
                await connection.recv()
                seen.came.append(time.perf_counter())
                seen.latencies.append(seen.came[-1] - sent)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    seen.own_cpu = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return seen


async def light_beside(gateway: Gateway, path: str, limit: int, *, seconds: float) -> Load:
    """What a light client sees of its worker while a heavy one is served there."""
    heavy = asyncio.create_task(load(gateway, path, limit, clients=1, seconds=seconds))
    light = await load(gateway, "/light", '"x"', clients=1, seconds=seconds)
    await heavy
    return light


def bare(limit: int, *, processes: int, seconds: float) -> tuple[float, float]:
    """So many Python processes without any gateway: their answers a second, all together, and the smallest share of the
    time for which one had a CPU."""
    command = [sys.executable, str(HERE / "bare.py"), str(limit), str(seconds)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    rates, shares = zip(*(map(float, process.communicate()[0].split()) for process in started), strict=True)
    return sum(rates), min(shares)


# --- the tables -------------------------------------------------------------------------------------------------------


@dataclass
class Best:
    """The best of several rounds, of each figure for itself: whatever else runs on the machine only takes away."""

    single: Load
    clustered: Load
    bare_single: float
    bare_together: float
    bare_share: float
    """For how much of the time each of the processes together had a CPU."""

    @property
    def gain(self) -> float:
        return self.clustered.per_second / self.single.per_second

    @property
    def bare_gain(self) -> float:
        return self.bare_together / self.bare_single


def measured(one: Gateway, many: Gateway, limit: int, *, workers: int, seconds: float, rounds: int) -> Best:
    """All four figures in turns, so that a slow minute of the machine hits none alone."""
    clients = CLIENTS_PER_WORKER * workers
    single, clustered, bare_single, bare_together = [], [], [], []
    for _ in range(rounds):
        bare_single.append(bare(limit, processes=1, seconds=seconds)[0])
        single.append(asyncio.run(load(one, "/inline", limit, clients=clients, seconds=seconds)))
        bare_together.append(bare(limit, processes=workers, seconds=seconds))
        clustered.append(asyncio.run(load(many, "/inline", limit, clients=clients, seconds=seconds)))
    fastest = [max(loads, key=lambda seen: seen.per_second) for loads in (single, clustered)]
    return Best(fastest[0], fastest[1], max(bare_single), *max(bare_together))


def show_clustering(best: Best, workers: int, rounds: int) -> None:
    print(f"{'':12}{'messages/s':>12}{'p50':>10}{'p99':>10}{'speed-up':>10}")
    for name, seen, gain in (("1 worker", best.single, 1.0), (f"{workers} workers", best.clustered, best.gain)):
        print(f"{name:12}{seen.per_second:12.1f}{seen.p50 * 1e3:7.1f} ms{seen.p99 * 1e3:7.1f} ms{gain:9.2f}×")
    bare, kept = best.bare_gain, best.gain / best.bare_gain
    print(f"\nOn this machine {workers} bare processes gain {bare:.2f}× on the same work: {kept:.2f} of it is kept.")
    print(f"The best of {rounds} rounds; the clients themselves took {best.clustered.own_cpu:.1%} of a CPU.\n")
    if best.bare_share < UNDISTURBED:
        print(
            f"Other programs are busy: the bare processes had a CPU for {best.bare_share:.0%} of the time only, and the"
        )
        print("figures tell more about that than about workers. Run this again when the machine is quiet.\n")


def show_offload(gateway: Gateway, limit: int, seconds: float) -> None:
    print("A light message to a worker that answers heavy ones:")
    print(f"{'':12}{'p50':>10}{'p99':>10}")
    for name, path in (("inline", "/inline"), ("app.offload", "/offload")):
        asyncio.run(load(gateway, path, limit, clients=1, seconds=0.5))  # the first call starts the process
        light = asyncio.run(light_beside(gateway, path, limit, seconds=seconds))
        print(f"{name:12}{light.p50 * 1e3:7.2f} ms{light.p99 * 1e3:7.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-ms", type=float, default=25.0, help="CPU time of one message (default: 25)")
    parser.add_argument("--seconds", type=float, default=1.2, help="of each measurement (default: 1.2)")
    parser.add_argument("--rounds", type=int, default=6, help="measurements of everything (default: 6)")
    options = parser.parse_args()

    workers = available_cpus()
    limit = limit_for(options.work_ms / 1e3)
    print(f"Counting the primes below {limit}: {timed(limit) * 1e3:.0f} ms of pure Python for each message.")
    with Gateway(APP, workers=1) as one:
        if workers == 1:
            print("This process may use 1 CPU only: a second worker has nothing to gain here.\n")
        else:
            print(f"{CLIENTS_PER_WORKER * workers} clients, one message outstanding each; {workers} CPUs.\n")
            with Gateway(APP, *IN_TURNS, workers=workers) as many:
                best = measured(one, many, limit, workers=workers, seconds=options.seconds, rounds=options.rounds)
            show_clustering(best, workers, options.rounds)
        show_offload(one, limit, options.seconds)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
