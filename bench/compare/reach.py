"""The reach: what quelmdb wants to be measured by, judged by the figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.compare import tasks, threads
from bench.compare.figures import Figures
from bench.compare.harness import Timing
from bench.compare.peers import floor, huey, litequeue, ours, sqlite
from bench.compare.text import duration, per_second, times


@dataclass(frozen=True)
class Reached:
    """A line of the reach: what was wanted, what was measured, whether it holds."""

    workload: str
    wanted: str
    measured: str
    holds: bool


Timings = Mapping[str, Timing]
Verdict = tuple[str, str, bool]
"""What was wanted, what was measured, whether it holds."""


def reach(figures: Figures) -> list[Reached]:
    """Every line that can be judged by these figures."""
    return [Reached(workload, *verdict) for workload, judge in _LINES for verdict in judge(figures)]


# --- What can be said of one workload ----------------------------------------


def _faster(timings: Timings, name: str, other: str, least: float) -> Iterator[Verdict]:
    """At least so many times as fast as another peer."""
    if name in timings and other in timings:
        ratio = timings[other].best / timings[name].best
        yield f"at least {least:g} × {other}", times(ratio), ratio >= least


def _near(timings: Timings, name: str, other: str, most: float) -> Iterator[Verdict]:
    """At most so many times the time of another peer."""
    if name in timings and other in timings:
        ratio = timings[name].best / timings[other].best
        yield f"at most {most:g} × the time of {other}", times(ratio), ratio <= most


def _rate(timings: Timings, name: str, least: float) -> Iterator[Verdict]:
    if name in timings:
        best = timings[name].best
        yield f"at least {per_second(1 / least)}", per_second(best), 1 / best >= least


def _rate_or_near(
    timings: Timings, name: str, least: float, other: str, most: float
) -> Iterator[Verdict]:
    if name in timings and other in timings:
        best = timings[name].best
        ratio = best / timings[other].best
        yield (
            f"at least {per_second(1 / least)}, or {most:g} × the time of {other}",
            f"{per_second(best)}, {times(ratio)}",
            1 / best >= least or ratio <= most,
        )


def _at_sizes(
    figures: Figures, workload: str, judge: Callable[[Timings], Iterator[Verdict]]
) -> Iterator[Verdict]:
    """One verdict for what must hold at every size."""
    found = [
        (size, verdict)
        for size, timings in figures.at_sizes(workload).items()
        for verdict in judge(timings)
    ]
    if found:
        yield (
            found[0][1][0],
            "; ".join(f"{measured} at {size:,}" for size, (_, measured, _) in found),
            all(holds for _, (_, _, holds) in found),
        )


# --- The lines ----------------------------------------------------------------


def _insert_ephemeral(figures: Figures) -> Iterator[Verdict]:
    timings = figures.timings("insert_each")
    yield from _faster(timings, ours.EPHEMERAL, sqlite.NORMAL, 3.5)
    yield from _faster(timings, ours.EPHEMERAL, sqlite.OFF, 2.5)
    yield from _near(timings, ours.EPHEMERAL, floor.EPHEMERAL, 1.6)


def _insert_threads(figures: Figures) -> Iterator[Verdict]:
    many, one = (figures.timings(threads.key(count)) for count in (64, 1))
    yield from _faster(many, ours.FULL, sqlite.FULL, 5)
    if ours.FULL in many and ours.FULL in one:
        ratio = one[ours.FULL].best / many[ours.FULL].best
        yield "at least 8 × its own single thread", times(ratio), ratio >= 8


def _insert_full(figures: Figures) -> Iterator[Verdict]:
    yield from _near(figures.timings("insert_each"), ours.FULL, floor.FULL, 1.2)


def _insert_tasks(figures: Figures) -> Iterator[Verdict]:
    for count, least in ((1000, 110e3), (100, 65e3)):
        for wanted, measured, holds in _rate(figures.timings(tasks.key(count)), ours.FULL, least):
            yield f"{wanted} with {count:,} in flight", measured, holds


def _insert_many(figures: Figures) -> Iterator[Verdict]:
    timings = figures.timings("insert_all")
    yield from _faster(timings, ours.FULL, sqlite.FULL, 1.5)
    yield from _near(timings, ours.FULL, floor.FULL, 1.5)
    yield from _faster(timings, ours.EPHEMERAL, sqlite.OFF, 1.5)
    yield from _near(timings, ours.EPHEMERAL, floor.EPHEMERAL, 1.5)


def _claim_batches(name: str, least: float, other: str) -> Callable[[Figures], Iterator[Verdict]]:
    return lambda figures: _rate_or_near(figures.timings("claim_batches"), name, least, other, 2)


def _claim_each(figures: Figures) -> Iterator[Verdict]:
    timings = figures.timings("claim_each")
    yield from _faster(timings, ours.EPHEMERAL, litequeue.NAME, 6)
    yield from _faster(timings, ours.EPHEMERAL, huey.DEFAULT, 2)
    yield from _faster(timings, ours.EPHEMERAL, huey.OFF, 2)


def _flat(figures: Figures) -> Iterator[Verdict]:
    for workload in ("of_worker_rare", "of_worker_busy"):
        costs = [
            (size, timings[ours.FULL].best)
            for size, timings in figures.at_sizes(workload).items()
            if ours.FULL in timings
        ]
        if len(costs) > 1:
            (few, _), (many, _) = costs[0], costs[-1]
            seconds = [best for _, best in costs]
            ratio = max(seconds) / min(seconds)
            yield (
                f"within 1.5 × from {few:,} to {many:,} jobs ({_KINDS[workload]})",
                f"{times(ratio)} ({', '.join(map(duration, seconds))})",
                ratio <= 1.5,
            )


_KINDS: Final = {"of_worker_rare": "a worker that has 100", "of_worker_busy": "of many"}


def _ids(figures: Figures) -> Iterator[Verdict]:
    for workload, least in (
        ("ids_of_status", 20e6),
        ("ids_paged", 2e6),
        ("ids_incomplete", 2e6),
        ("ids_of_worker", 2e6),
    ):
        yield from (
            (f"{workload}: {wanted}", measured, holds)
            for wanted, measured, holds in _at_sizes(
                figures, workload, partial(_rate, name=ours.FULL, least=least)
            )
        )


def _jobs(figures: Figures) -> Iterator[Verdict]:
    for wanted, measured, holds in _at_sizes(
        figures, "status_untouched", lambda timings: _rate(timings, ours.FULL, 600e3)
    ):
        yield f"{wanted} untouched", measured, holds
    for wanted, measured, holds in _at_sizes(
        figures, "status_decoded", lambda timings: _faster(timings, ours.FULL, sqlite.FULL, 2)
    ):
        yield f"{wanted} decoded", measured, holds


def _counts(figures: Figures) -> Iterator[Verdict]:
    def quick(timings: Timings) -> Iterator[Verdict]:
        if ours.FULL in timings:
            best = timings[ours.FULL].best
            yield "under 5 µs", duration(best), best < 5e-6

    for workload in ("count_failed", "counts"):
        for wanted, measured, holds in _at_sizes(figures, workload, quick):
            yield f"{workload}: {wanted}", measured, holds


def _memory(figures: Figures) -> Iterator[Verdict]:
    for size, grown in figures.memory.items():
        if ours.FULL in grown:
            megabytes = {key: bytes / 1e6 for key, bytes in grown[ours.FULL].items()}
            yield (
                f"less than 50 MB at {size:,} jobs",
                ", ".join(f"{value:.1f} MB {key}" for key, value in megabytes.items()),
                max(megabytes.values()) < 50,
            )


def _store_size(figures: Figures) -> Iterator[Verdict]:
    ratios = {
        size: taken[ours.FULL].used / taken[sqlite.FULL].file
        for size, taken in figures.sizes.items()
        if ours.FULL in taken and sqlite.FULL in taken
    }
    if ratios:
        yield (
            f"at most 1.3 × the file of {sqlite.FULL}",
            "; ".join(f"{times(ratio)} at {size:,}" for size, ratio in ratios.items()),
            max(ratios.values()) <= 1.3,
        )


_LINES: Final[tuple[tuple[str, Callable[[Figures], Iterator[Verdict]]], ...]] = (
    ("insert one by one, ephemeral", _insert_ephemeral),
    ("insert, 64 threads, full", _insert_threads),
    ("insert one by one, a lone thread, full", _insert_full),
    ("asyncio, full", _insert_tasks),
    ("insert_many", _insert_many),
    (
        "claim + complete, batches of 100, ephemeral",
        _claim_batches(ours.EPHEMERAL, 90e3, floor.EPHEMERAL),
    ),
    ("claim + complete, batches of 100, full", _claim_batches(ours.FULL, 40e3, floor.FULL)),
    ("claim + complete one by one, ephemeral", _claim_each),
    ("list 100 jobs of a worker", _flat),
    ("ids", _ids),
    ("jobs of a status", _jobs),
    ("counts", _counts),
    ("memory while listing", _memory),
    ("store size", _store_size),
)
