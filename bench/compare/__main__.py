"""Compares stores of jobs and writes a report: `python -m bench.compare`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent.parent

_TINY: Final = "A tiny run, to see that everything works: its figures say nothing."


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where every line of the reach that was measured holds, else 1."""
    # Imported here, since each process that is started imports this module for itself.
    from bench.compare.figures import Figures
    from bench.compare.harness import workspace
    from bench.compare.machine import machine, versions, warnings
    from bench.compare.peers import PEERS
    from bench.compare.reach import reach
    from bench.compare.report import write
    from bench.compare.run import keys_of, run
    from bench.compare.workload import DEFAULT, TINY

    # What was started and written is to be cleared away, however the run ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = _parser(tuple(PEERS), keys_of(DEFAULT)).parse_args(arguments)
    begun = time.monotonic()
    scale = TINY if options.tiny else DEFAULT
    if options.rounds:
        scale = scale._replace(rounds=options.rounds)
    if options.large:
        scale = scale._replace(sizes=(*scale.sizes, 10_000_000))
    missing = {name: PEERS[name].missing() for name in options.peers}
    peers = [PEERS[name] for name, why in missing.items() if not why]
    with workspace(options.directory) as directory:
        figures = Figures(
            made=date.today().isoformat(),
            command=_command(sys.argv[1:] if arguments is None else arguments),
            machine=machine(directory),
            versions=versions(),
            peers=[peer.name for peer in peers],
            missing={name: why for name, why in missing.items() if why},
            warnings=[*([_TINY] * options.tiny), *warnings(directory)],
        )
        for text in (*figures.warnings, *(f"{n}: {why}" for n, why in figures.missing.items())):
            _tell(text)
        run(figures, peers, options.only or keys_of(scale), scale, directory, _tell)
    write(figures, options.output)
    _tell(f"{time.monotonic() - begun:.0f} s; written to {options.output / 'REPORT.md'}")
    lines = reach(figures)
    for line in lines:
        print(
            f"{'pass' if line.holds else 'FAIL'}  {line.workload}, {line.wanted}: {line.measured}"
        )
    return 0 if all(line.holds for line in lines) else 1


def _parser(peers: Sequence[str], keys: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description=__doc__,
        epilog=f"peers: {', '.join(peers)}. workloads: {', '.join(keys)}.",
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured (5)")
    parser.add_argument("--large", action="store_true", help="also stores of 10,000,000 jobs")
    parser.add_argument(
        "--tiny", action="store_true", help="to see that everything works; the figures say nothing"
    )
    parser.add_argument(
        "--only", nargs="+", choices=keys, metavar="WORKLOAD", help="some workloads alone"
    )
    parser.add_argument(
        "--peers", nargs="+", choices=peers, default=peers, metavar="PEER", help="some peers alone"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where stores are made (here)"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="where the report goes (bench/)")
    return parser


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "bench.compare", *arguments])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
