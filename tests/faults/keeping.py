"""Which figures a run of the proofs leaves in their report: a plugin of pytest."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import date
from typing import Final

import pytest

from tests.faults.figures import FIXTURE, told_in
from tests.faults.report import Tests, Told

_SKIPPED: Final = "Skipped: "  # what pytest has before the reason


class Proofs:
    """The ids of all tests that tell a figure, as pytest collects them."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.found = {
            item.nodeid
            for item in session.items
            if isinstance(item, pytest.Function) and FIXTURE in item.fixturenames
        }


class Keeper:
    """Keeps what each proof that passed has told, and why one was not run."""

    def __init__(self, proofs: Collection[str], version: str) -> None:
        """`version`: of what is proved."""
        self._proofs = proofs
        self._version = version
        self._begun: dict[str, float] = {}
        self._ended: set[str] = set()
        self._told: dict[str, Told] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._begun[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid
        if test not in self._proofs:
            return
        if report.failed or report.when == "teardown":
            self._ended.add(test)
        if report.failed:
            self._begun.pop(test, None)
        elif report.skipped and isinstance(report.longrepr, tuple):
            self._keep(test, f"not run: {report.longrepr[2].removeprefix(_SKIPPED)}")
        for told in told_in(report):
            self._keep(test, told)

    def _keep(self, test: str, figure: str) -> None:
        if begun := self._begun.get(test):
            seconds = round(time.monotonic() - begun)
            self._told[test] = {
                "figure": figure,
                "seconds": seconds,
                "made": date.today().isoformat(),
                "version": self._version,
            }

    def kept(self, known: Tests) -> dict[str, Told]:
        """What was told now; of the proofs that were not run, what was `known`. So a figure
        goes when its test fails, or tells none any more, or is gone itself."""
        left = {
            test: told
            for test, told in known.items()
            if test in self._proofs and test not in self._ended
        }
        return left | self._told
