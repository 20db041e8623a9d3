"""Measures, and writes REPORT.md and report.json: `python -m bench.report`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from bench.figures import Figures, reach
from bench.harness import FEWEST_ROUNDS, measure, workspace
from bench.machine import is_in_memory, machine, versions
from bench.render import report
from bench.workloads import WORKLOADS

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where every line of the reach holds, else 1."""
    options = _parser().parse_args(arguments)
    begun = time.monotonic()
    with workspace(options.directory) as directory:
        facts = machine(directory)
        warning = ""
        if is_in_memory(directory):
            warning = "Measured in memory, where a sync does nothing: writes say nothing here."
            print(warning, file=sys.stderr)
        found = measure(options.sizes, options.rounds, directory, options.only, _tell)
    figures = Figures.of(
        found,
        made=date.today().isoformat(),
        command=_command(sys.argv[1:] if arguments is None else arguments),
        machine=facts,
        versions=versions(),
        warning=warning,
    )
    figures.write(options.output / "report.json")
    (options.output / "REPORT.md").write_text(report(figures))
    _tell(f"{time.monotonic() - begun:.0f} s; written to {options.output / 'REPORT.md'}")
    lines = reach(figures)
    for line in lines:
        print(f"{'pass' if line.holds else 'FAIL'}  {line.wanted}: {line.measured}")
    return 0 if all(line.holds for line in lines) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument(
        "--sizes",
        type=lambda text: sorted(map(int, text.split(","))),
        default=[1000, 10_000, 100_000, 1_000_000],
        help="numbers of jobs, with commas between (1000,10000,100000,1000000)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=7,
        help=f"how often (7); more where it is quick, {FEWEST_ROUNDS} at least where it is slow",
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where stores are made (here)"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="where the report goes (bench/)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        choices=[workload.key for workload in WORKLOADS],
        metavar="WORKLOAD",
        help="some workloads alone; give another --output",
    )
    return parser


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "bench.report", *arguments])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
