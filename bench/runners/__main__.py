"""Compares runners and writes RUNNERS.md and runners.json: `python -m bench.runners`."""

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
PARTS: Final = ("throughput", "live", "wait")

_SMALL: Final = "A small run, to see that everything works: its figures say nothing."


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 where every line of the reach that was measured holds, else 1."""
    # Imported here, since each process that is started imports this module for itself.
    from bench.compare.harness import workspace
    from bench.compare.machine import machine, versions, warnings
    from bench.runners.contenders import CONTENDERS
    from bench.runners.figures import Figures
    from bench.runners.reach import reach
    from bench.runners.render import report
    from bench.runners.run import run
    from bench.runners.scale import DEFAULT, SMALL

    # What was started and written is to be cleared away, however the run ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = _parser(tuple(CONTENDERS)).parse_args(arguments)
    begun = time.monotonic()
    scale = SMALL if options.small else DEFAULT
    if options.rounds:
        scale = scale._replace(rounds=options.rounds)
    contenders = [CONTENDERS[name] for name in options.contenders]
    with workspace(options.directory) as directory:
        figures = Figures(
            made=date.today().isoformat(),
            command=_command(sys.argv[1:] if arguments is None else arguments),
            machine=machine(directory),
            versions=versions(),
            warnings=[*([_SMALL] * options.small), *warnings(directory)],
        )
        for warning in figures.warnings:
            _tell(warning)
        run(figures, contenders, options.only or PARTS, scale, directory, _tell)
    figures.write(options.output / "runners.json")
    (options.output / "RUNNERS.md").write_text(report(figures))
    _tell(f"{time.monotonic() - begun:.0f} s; written to {options.output / 'RUNNERS.md'}")
    lines = reach(figures)
    for line in lines:
        print(
            f"{'pass' if line.holds else 'FAIL'}  {line.workload}, {line.wanted}: {line.measured}"
        )
    return 0 if all(line.holds for line in lines) else 1


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.runners",
        description=__doc__,
        epilog=f"contenders: {'; '.join(names)}. parts: {', '.join(PARTS)}.",
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured (3)")
    parser.add_argument(
        "--small", action="store_true", help="to see that everything works; the figures say nothing"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="some parts alone")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help="some contenders alone",
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where stores are made (here)"
    )
    parser.add_argument("--output", type=Path, default=HERE, help="where the report goes (bench/)")
    return parser


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "bench.runners", *arguments])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
