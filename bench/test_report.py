"""A small run of the whole report: figures survive their file, and the README takes the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import Figures, duration, per_second, reach
from bench.readme import BEGIN, END, with_table
from bench.render import report
from bench.report import main


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, directory: Path) -> Figures:
    output = tmp_path_factory.mktemp("report")
    main(
        f"--sizes 1000,2000 --rounds 3 --output {output} --directory {directory} "
        "--only jobs_of_rare count_failed".split()
    )
    assert (output / "REPORT.md").read_text() == report(Figures.read(output / "report.json"))
    return Figures.read(output / "report.json")


def test_every_chosen_workload_is_in_the_figures_at_every_size(figures: Figures) -> None:
    measured = [(result.size, result.workload) for result in figures.results]
    assert measured == [
        (size, workload) for size in (1000, 2000) for workload in ("jobs_of_rare", "count_failed")
    ]
    for result in figures.results:
        assert set(result.timings) == {"quelmdb", "floor", "sqlite3"}
        assert all(t.best <= t.median <= t.worst for t in result.timings.values())


def test_only_what_was_measured_is_judged(figures: Figures) -> None:
    assert len(reach(figures)) == 2


def test_the_readme_takes_the_table_between_the_markers_again_and_again(figures: Figures) -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = with_table(text, figures)
    assert once.startswith(f"before\n{BEGIN}\n|")
    assert once.endswith(f"\n{END}\nafter\n")
    assert with_table(once, figures) == once


@pytest.mark.parametrize("text", ["none", f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_the_markers_is_refused(figures: Figures, text: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        with_table(text, figures)


@pytest.mark.parametrize(
    ("seconds", "time", "rate"),
    [
        (0.0000000583, "58.3 ns", "17.2 M/s"),
        (0.00000424, "4.24 µs", "236 k/s"),
        (0.000999996, "1000 µs", "1.00 k/s"),
        (0.0031, "3.10 ms", "323 /s"),
        (2.0, "2.00 s", "0.50 /s"),
    ],
)
def test_figures_have_three_digits_and_the_unit_that_fits(
    seconds: float, time: str, rate: str
) -> None:
    assert duration(seconds) == time
    assert per_second(seconds) == rate
