"""Times workloads so that the contestants can be compared.

All contestants are filled with the same jobs, stay open side by side, and take turns round by
round, a different one first each time, so that what disturbs the machine disturbs all
alike. What counts is the best round; the spread of the rounds is kept beside it. Python's
garbage collector is off while the clock runs, for everyone.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from bench.contestant import Contestant, Size
from bench.data import Data
from bench.floor import Floor, Puts
from bench.ours import Ours
from bench.sqlite import Sqlite
from bench.workloads import WORKLOADS, Workload

T = TypeVar("T")

CONTESTANTS: Final[tuple[type[Contestant], ...]] = (Ours, Floor, Sqlite)

FEWEST_ROUNDS: Final = 3
# Seconds for one workload: what is quick gets more rounds than asked for, what is slow fewer.
_LEAST: Final = 1.0
_PATIENCE: Final = 12.0
_MOST_ROUNDS: Final = 50
_SHORTEST: Final = 0.01  # seconds that a round of a repeatable workload takes at least
_FILL_BATCH: Final = 1000


@dataclass(frozen=True)
class Timing:
    """Seconds a unit, of one contestant: the best round, the median, the worst."""

    best: float
    median: float
    worst: float
    rounds: int

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Timing:
        return cls(min(rounds), statistics.median(rounds), max(rounds), len(rounds))


@dataclass(frozen=True)
class Result:
    """One workload at one size, by contestant."""

    workload: str
    size: int
    timings: dict[str, Timing]


@dataclass(frozen=True)
class Results:
    """What a run of the harness has found: timings, and bytes by size and contestant."""

    results: list[Result]
    sizes: dict[int, dict[str, Size]]


def contestants_of(workload: Workload) -> tuple[type[Contestant], ...]:
    """Who takes part."""
    return (*CONTESTANTS, Puts) if workload.key == "insert_all" else CONTESTANTS


def measure(
    sizes: Sequence[int],
    rounds: int,
    directory: Path,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Results:
    """Runs every workload (or those in `only`) at every size; files go below `directory`."""
    found = Results([], {})
    chosen = [workload for workload in WORKLOADS if not only or workload.key in only]
    for size in sizes:
        data = Data(size)
        gc.collect()
        gc.freeze()  # the jobs are not to be looked at by each collection before a round
        with ExitStack() as stack:
            stores = [stack.enter_context(filled(kind, data, directory)) for kind in CONTESTANTS]
            found.sizes[size] = {store.name: store.size() for store in stores}
            for workload in chosen:
                begun = time.perf_counter()
                if workload.empty:
                    result = _compare_empty(workload, data, rounds, directory)
                else:
                    result = _compare(workload, data, rounds, stores)
                found.results.append(result)
                took = time.perf_counter() - begun
                tell(f"{size:>9,}  {workload.key:20} {_best(result)}  ({took:.1f} s)")
        gc.unfreeze()
    return found


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A new directory below `parent`, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=parent.resolve()) as place:
        yield Path(place)


@contextmanager
def filled(kind: type[Contestant], data: Data, directory: Path) -> Iterator[Contestant]:
    """A contestant that holds the jobs of `data`, inserted in batches."""
    with empty(kind, directory) as store:
        ids: list[int] = []
        for start in range(0, data.size, _FILL_BATCH):
            made = store.insert_many(store.ready(data.rows[start : start + _FILL_BATCH]))
            ids += map(store.id_of, made)
        if ids != list(range(1, data.size + 1)):
            raise RuntimeError(f"{store.name} did not give the ids from 1 to {data.size}")
        store.settle()
        yield store


@contextmanager
def empty(kind: type[Contestant], directory: Path) -> Iterator[Contestant]:
    """A contestant without jobs, in a directory that is removed afterwards."""
    place = Path(tempfile.mkdtemp(prefix=f"{kind.name}-", dir=directory))
    try:
        with kind(place) as store:
            yield store
    finally:
        shutil.rmtree(place)


def _compare(workload: Workload, data: Data, rounds: int, stores: Sequence[Contestant]) -> Result:
    repeats = {store.name: 1 for store in stores}
    for store in stores:  # warms up, too
        spent, _ = _round(workload, store, data, 1)
        if workload.repeatable:
            repeats[store.name] = max(1, int(_SHORTEST / spent))
    times: dict[str, list[float]] = {store.name: [] for store in stores}
    for number in _numbers(rounds):
        for store in _turn(stores, number):
            spent, units = _round(workload, store, data, repeats[store.name])
            times[store.name].append(spent / units)
    return _result(workload, data, times)


def _compare_empty(workload: Workload, data: Data, rounds: int, directory: Path) -> Result:
    kinds = contestants_of(workload)
    times: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for number in _numbers(rounds):
        for kind in _turn(kinds, number):
            with empty(kind, directory) as store:
                spent, units = _round(workload, store, data, 1)
            times[kind.name].append(spent / units)
    return _result(workload, data, times)


def _numbers(rounds: int) -> Iterator[int]:
    """The numbers of the rounds, about `rounds` of them."""
    begun = time.perf_counter()
    for number in range(_MOST_ROUNDS):
        spent = time.perf_counter() - begun
        enough = number >= rounds and spent >= _LEAST
        if enough or (number >= FEWEST_ROUNDS and spent >= _PATIENCE):
            return
        yield number


def _turn(items: Sequence[T], number: int) -> Sequence[T]:
    first = number % len(items)
    return [*items[first:], *items[:first]]


def _round(workload: Workload, store: Contestant, data: Data, repeats: int) -> tuple[float, int]:
    """Seconds and units of one round."""
    with workload.round(store, data) as timed:
        if not workload.repeatable:
            os.sync()  # what others wrote is not to be paid for by this one's syncs
        gc.collect()
        gc.disable()
        try:
            units = 0
            begun = time.perf_counter()
            for _ in range(repeats):
                units += timed()
            spent = time.perf_counter() - begun
        finally:
            gc.enable()
    return spent, units


def _result(workload: Workload, data: Data, times: dict[str, list[float]]) -> Result:
    timings = {name: Timing.of(rounds) for name, rounds in times.items()}
    return Result(workload.key, data.size, timings)


def _best(result: Result) -> str:
    return (
        "  ".join(f"{name} {timing.best * 1e6:.3f}" for name, timing in result.timings.items())
        + " us"
    )
