"""``python -m benchmarks [NAME] …``: run, print, keep the figures in ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the gateway of the integration tests

from benchmarks import asgi, blocked, cpu_bound, echo, fan_out, game, openings  # noqa: E402
from benchmarks.measure import circumstances  # noqa: E402

BENCHMARKS = {
    "openings": openings.run,
    "echo": echo.run,
    "asgi": asgi.run,
    "blocked": blocked.run,
    "cpu_bound": cpu_bound.run,
    "fan_out": fan_out.run,
    "game": game.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
        figures = BENCHMARKS[name]()
        for key, value in figures.items():
            print(f"{name:9} {key:30} {value['median']:9.3g}  [{value['low']:.3g}, {value['high']:.3g}]")
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps({"circumstances": circumstances(), "figures": figures}, indent=2)
        (RESULTS / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
