"""Each proof tells a figure; they are printed when all tests are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.figures import PROPERTY, Tell, told_in

_AT_LENGTH: Final = 7200  # seconds that a test may take in its long form


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Tell:
    return lambda text: record_property(PROPERTY, text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.timeout(_AT_LENGTH))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        f"{report.nodeid.partition('::')[2]}: {figure}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
        for figure in told_in(report)
    ]
    if lines:
        terminalreporter.section("figures of the proofs under faults")
        for line in sorted(lines):
            terminalreporter.line(line)
