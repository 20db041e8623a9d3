"""The report of the last long run, and its figures in docs/durability.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.compare.text import table

HERE: Final = Path(__file__).parent
FIGURES: Final = HERE / "report.json"
REPORT: Final = HERE / "REPORT.md"
DURABILITY: Final = HERE.parents[1] / "docs" / "durability.md"

Told = Mapping[str, Any]
"""Of a test: its `figure`, how many `seconds` it took, when it was `made`, and of which
`version` of quelmdb; figures of old runs have none."""

Tests = Mapping[str, Told]
"""By pytest's ids."""

_ROW: Final = re.compile(r"^(\| .* \| `(tests/faults/\w+\.py::\w+)` \|).*\|$", re.M)
_NONE: Final = "–"
_MOST: Final = 4  # figures of a test with parameters, in a cell

_INTRODUCTION: Final = """\
# Proofs under faults

The long forms of the tests in tests/faults, made by `python -m tests.faults`. Each figure is
of a run that passed: of what a line counts, nothing acknowledged was lost and no check failed,
unless the line says otherwise. What the machine has no means for is "not run", with the reason.
docs/durability.md has the promises that they stand for. A figure stays until its test is run again:
"of" is the version and commit that it was made with, – where that was not kept."""


def rendered(figures: Mapping[str, Any]) -> str:
    """REPORT.md."""
    rows = (
        (
            f"`{test}`",
            told["figure"],
            f"{told['seconds']} s",
            told["made"],
            told.get("version", _NONE),
        )
        for test, told in sorted(figures["tests"].items())
    )
    parts = [
        _INTRODUCTION,
        table(("test", "figure", "took", "on", "of"), rows),
        "## Machine and versions of the last run",
        table(("", ""), (figures["machine"] | figures["versions"]).items()),
    ]
    return "\n\n".join(parts) + "\n"


def with_figures(text: str, tests: Tests) -> str:
    """The page with the last cell of each row that names such a test replaced by what the
    test told; where it has parameters, by what the first few of them did."""

    def filled(row: re.Match[str]) -> str:
        of_it = (told for test, told in sorted(tests.items()) if test.partition("[")[0] == row[2])
        told = list(dict.fromkeys(told["figure"] for told in of_it))
        rest = ["and more in the report"] if len(told) > _MOST else []
        return f"{row[1]} {'; '.join(told[:_MOST] + rest) or _NONE} |"

    return _ROW.sub(filled, text)


def named_tests(text: str) -> list[str]:
    """The ids of the tests that have a row, without parameters."""
    return [row[2] for row in _ROW.finditer(text)]
