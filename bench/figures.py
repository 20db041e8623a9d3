"""The figures of a run: how they are kept in a file, and what they say about the reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.contestant import Size
from bench.harness import Result, Results, Timing


@dataclass(frozen=True)
class Figures:
    """All that a report is made of."""

    made: str
    """The date."""
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    warning: str
    """What makes them worth less; mostly empty."""
    results: list[Result]
    sizes: dict[int, dict[str, Size]]

    @classmethod
    def of(
        cls,
        found: Results,
        *,
        made: str,
        command: str,
        machine: dict[str, str],
        versions: dict[str, str],
        warning: str,
    ) -> Figures:
        return cls(made, command, machine, versions, warning, found.results, found.sizes)

    def write(self, path: Path) -> None:
        """As JSON: seconds a unit, bytes."""
        content = asdict(self)
        content["sizes"] = {
            size: {name: taken._asdict() for name, taken in by_name.items()}
            for size, by_name in self.sizes.items()
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Figures:
        content: dict[str, Any] = json.loads(path.read_text())
        content["results"] = [
            Result(
                result["workload"],
                result["size"],
                {name: Timing(**timing) for name, timing in result["timings"].items()},
            )
            for result in content["results"]
        ]
        content["sizes"] = {
            int(size): {name: Size(**taken) for name, taken in by_name.items()}
            for size, by_name in content["sizes"].items()
        }
        return cls(**content)


# --- The reach of the first issue about speed --------------------------------


@dataclass(frozen=True)
class Reached:
    """A line of the reach: what was wanted, what was measured, whether it holds."""

    wanted: str
    measured: str
    holds: bool


def reach(figures: Figures) -> list[Reached]:
    """Every line that can be judged by these figures. Each must hold at every size."""
    lines = [
        _at_each_size(figures, "insert_all", _INSERTS, _insert_speed),
        _at_each_size(figures, "ids_of_status", "ids of one status: 10 M/s", _rate(10e6)),
        _at_each_size(figures, "incomplete_ids", "ids of incomplete: 1.5 M/s", _rate(1.5e6)),
        _at_each_size(figures, "ids_of_worker", "ids of all of a worker: 1.5 M/s", _rate(1.5e6)),
        _same_cost(figures, "jobs_of_rare"),
        _at_each_size(figures, "count_failed", "`len(store.failed())`: under 10 µs", _under(10e-6)),
        _at_each_size(
            figures, "iterate", "jobs in a snapshot, arguments untouched: 500 k/s", _rate(500e3)
        ),
    ]
    return [line for line in lines if line is not None]


_INSERTS: Final = "insert_many, all at once: 250 k jobs/s, or 1.6 times the floor's time"
_MOST: Final = 1.5

Judge = Callable[[Result], tuple[str, bool]]


def _at_each_size(figures: Figures, workload: str, wanted: str, judge: Judge) -> Reached | None:
    verdicts = [
        (result.size, *judge(result)) for result in figures.results if result.workload == workload
    ]
    if not verdicts:
        return None
    measured = "; ".join(f"{text} at {size:,}" for size, text, _ in verdicts)
    return Reached(wanted, measured, all(holds for _, _, holds in verdicts))


def _same_cost(figures: Figures, workload: str) -> Reached | None:
    results = [result for result in figures.results if result.workload == workload]
    if len(results) < 2:
        return None
    few, many = results[0], results[-1]
    ratio = many.timings["quelmdb"].best / few.timings["quelmdb"].best
    floors = many.timings["floor"].best / few.timings["floor"].best
    return Reached(
        f"100 jobs of a worker at {many.size:,} jobs: at most {_MOST} times as at {few.size:,}",
        f"{ratio:.2f} times (the floor: {floors:.2f})",
        ratio <= _MOST,
    )


def _insert_speed(result: Result) -> tuple[str, bool]:
    best = result.timings["quelmdb"].best
    ratio = best / result.timings["floor"].best
    return f"{per_second(best)}, {ratio:.2f} times", best <= 1 / 250e3 or ratio <= 1.6


def _rate(wanted: float) -> Judge:
    def judge(result: Result) -> tuple[str, bool]:
        best = result.timings["quelmdb"].best
        return per_second(best), 1 / best >= wanted

    return judge


def _under(seconds: float) -> Judge:
    def judge(result: Result) -> tuple[str, bool]:
        best = result.timings["quelmdb"].best
        return duration(best), best < seconds

    return judge


def duration(seconds: float) -> str:
    """With three digits and the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def per_second(seconds: float) -> str:
    """How often it fits into a second."""
    rate = 1 / seconds
    for unit, size in ((" M/s", 1e6), (" k/s", 1e3)):
        if rate >= size:
            return f"{_three_digits(rate / size)}{unit}"
    return f"{_three_digits(rate)} /s"


def _three_digits(value: float) -> str:
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"
