"""Numbers and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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


def times(ratio: float) -> str:
    """A ratio, with two digits where it is small."""
    digits = 0 if ratio >= 19.5 else 1 if ratio >= 1.95 else 2
    return f"{ratio:.{digits}f}×"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _three_digits(value: float) -> str:
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}"
