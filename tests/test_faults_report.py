"""docs/durability.md says of each promise which test backs it, and what its last long run told."""

from __future__ import annotations

import ast
import json
from typing import Any

from tests.faults.report import (
    DURABILITY,
    FIGURES,
    HERE,
    REPORT,
    named_tests,
    rendered,
    with_figures,
)

_FIGURES: dict[str, Any] = json.loads(FIGURES.read_text())


def test_the_report_and_the_page_are_of_the_figures_that_were_kept() -> None:
    assert REPORT.read_text() == rendered(_FIGURES)
    page = DURABILITY.read_text()
    assert page == with_figures(page, _FIGURES["tests"])


def test_every_promise_and_every_figure_is_of_a_test_that_is_there() -> None:
    named = named_tests(DURABILITY.read_text())
    assert len(named) == len(set(named))
    assert set(named) <= _proofs()
    assert {test.partition("[")[0] for test in _FIGURES["tests"]} <= _proofs()


def test_the_figures_of_a_test_stand_in_the_row_that_names_it() -> None:
    row = "| a promise | `tests/faults/test_a.py::test_b` |"
    told = {f"tests/faults/test_a.py::test_b[{n}]": {"figure": f"{n} kills"} for n in range(3)}
    page = f"{row} – |\n| another | `tests/faults/test_a.py::test_c` | old |"
    assert with_figures(page, told) == (
        f"{row} 0 kills; 1 kills; 2 kills |\n| another | `tests/faults/test_a.py::test_c` | – |"
    )


def test_a_figure_stands_with_the_version_that_it_was_made_with_or_a_dash() -> None:
    told = {"figure": "2 kills", "seconds": 1, "made": "2026-01-01"}
    tests = {"old": told, "new": {**told, "version": "0.1.0 (6fd6b49)"}}
    page = rendered({"tests": tests, "machine": {}, "versions": {}})
    assert "| `old` | 2 kills | 1 s | 2026-01-01 | – |" in page
    assert "| `new` | 2 kills | 1 s | 2026-01-01 | 0.1.0 (6fd6b49) |" in page


def _proofs() -> set[str]:
    """The tests that tell a figure."""
    return {
        f"tests/faults/{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and "figure" in {a.arg for a in node.args.args}
    }
