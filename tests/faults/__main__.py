"""Runs the proofs under faults at length, and writes their report:
`python -m tests.faults [PYTEST'S ARGUMENTS]`; with arguments, some of them anew."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from bench.compare.machine import machine, versions
from tests.faults.figures import told_in
from tests.faults.report import DURABILITY, FIGURES, HERE, REPORT, rendered, with_figures

_VERSIONS: Final = ("quelmdb", "Python", "lmdb", "cbor2")


class _Keeper:
    """Keeps what each test that passed has told, and how long it took."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.run: set[str] = set()
        self._begun: dict[str, float] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._begun[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.run.add(report.nodeid)
        if report.failed:
            self._begun.pop(report.nodeid, None)
        for told in told_in(report):
            if begun := self._begun.get(report.nodeid):
                self.tests[report.nodeid] = {
                    "figure": told,
                    "seconds": round(time.monotonic() - begun),
                    "made": date.today().isoformat(),
                }


def main(arguments: Sequence[str]) -> int:
    keeper = _Keeper()
    with TemporaryDirectory(dir=HERE) as place:  # for what a sync costs on this disk
        about: dict[str, Any] = {"machine": machine(Path(place))}
    about["versions"] = {name: versions()[name] for name in _VERSIONS}
    code = pytest.main(["-n", "0", "--long", *(arguments or [str(HERE)])], plugins=[keeper])
    # Read behind the run: another one may have ended meanwhile.
    known = json.loads(FIGURES.read_text()) if arguments and FIGURES.exists() else {"tests": {}}
    kept = {test: told for test, told in known["tests"].items() if test not in keeper.run}
    found = about | {"tests": kept | keeper.tests}
    FIGURES.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    REPORT.write_text(rendered(found))
    DURABILITY.write_text(with_figures(DURABILITY.read_text(), found["tests"]))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
