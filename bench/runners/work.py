"""What the jobs of the measurements do, whoever runs them."""

from __future__ import annotations

import time
from typing import Any, Final

from bench.data import queued

MARK: Final = "mark"

HUEY_OPTIONS: Final = "BENCH_RUNNERS_HUEY"
"""In the environment of huey's processes: the options of `SqliteHuey`, as JSON."""


def rows(count: int, marks: str) -> list[dict[str, Any]]:
    """Arguments of so many no-op jobs; the first one and the last one note when they run."""
    made = [queued(number)[1] for number in range(count)]
    for row in (made[0], made[-1]):
        row[MARK] = marks
    return made


def do_nothing(arguments: dict[str, Any]) -> None:
    """A no-op job."""
    if MARK in arguments:
        _note(arguments[MARK], time.time_ns())


def stamp(arguments: dict[str, Any]) -> None:
    """Notes how many nanoseconds ago it was enqueued, by the clock that all processes share."""
    _note(arguments["into"], time.monotonic_ns() - arguments["enqueued"])


def stamped(into: str) -> dict[str, Any]:
    """Arguments of `stamp`, enqueued now."""
    return {"into": into, "enqueued": time.monotonic_ns()}


def _note(path: str, number: int) -> None:
    with open(path, "a") as file:
        file.write(f"{number}\n")
