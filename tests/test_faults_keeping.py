"""What the report of the proofs under faults keeps of an earlier run, and what it does not."""

from __future__ import annotations

from typing import Final

import pytest

from tests.faults.keeping import Keeper, Proofs
from tests.faults.report import with_figures

pytest_plugins = ["pytester"]

_CONFTEST: Final = "from tests.faults.conftest import figure as figure"
_PROOFS: Final = """
import pytest

def test_that_passes(figure):
    figure("3 kills")

def test_that_tells_nothing_any_more(figure):
    pass

def test_that_fails(figure):
    figure("3 kills")
    assert False

@pytest.fixture
def no_disk():
    assert False

def test_that_fails_before_it_begins(no_disk, figure):
    figure("3 kills")

@pytest.fixture
def damaged():
    yield
    assert False

def test_that_fails_when_its_store_is_checked(damaged, figure):
    figure("3 kills")

@pytest.mark.skipif(True, reason="needs root")
def test_that_is_marked_as_skipped(figure):
    figure("3 kills")

def test_that_skips(figure):
    pytest.skip("needs mounts")

def test_without_a_figure_that_skips():
    pytest.skip("needs root")

def test_of_another_day(figure):
    figure("3 kills")
"""
_BEFORE: Final = {"figure": "2 kills", "seconds": 1, "made": "2026-01-01", "version": "old"}
_LEFT: Final = {
    "test_that_passes": ("3 kills", "new"),
    "test_that_is_marked_as_skipped": ("not run: needs root", "new"),
    "test_that_skips": ("not run: needs mounts", "new"),
    "test_of_another_day": ("2 kills", "old"),
}


def test_a_figure_stays_until_its_test_tells_another_or_fails_or_is_skipped_or_gone(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(test_it=_PROOFS)
    proofs = Proofs()
    pytester.inline_run("--collect-only", plugins=[proofs])
    keeper = Keeper(proofs.found, "new")
    pytester.inline_run("-k", "not another_day", plugins=[keeper])
    gone = "test_it.py::test_that_is_gone"
    left = keeper.kept(dict.fromkeys([*proofs.found, gone], _BEFORE))
    found = {
        test.partition("::")[2]: (told["figure"], told["version"]) for test, told in left.items()
    }
    assert found == _LEFT


def test_why_a_test_was_not_run_stands_once_in_the_row_of_a_promise() -> None:
    row = "| a promise | `tests/faults/test_a.py::test_b` |"
    why = {"figure": "not run: needs root"}
    told = dict.fromkeys((f"tests/faults/test_a.py::test_b[{n}]" for n in range(3)), why)
    assert with_figures(f"{row} – |", told) == f"{row} not run: needs root |"
