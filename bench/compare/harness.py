"""Times workloads so that peers can be compared.

The peers of a workload stay open side by side on one disk and take turns round by round, a
different one first each time, so that what disturbs the machine disturbs all alike. What
counts is the best round; the spread of the rounds is kept beside it. A round is as long for
a slow peer as for a quick one, so it does fewer units. Python's garbage collector is off
while the clock runs, for everyone.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from bench.compare.peer import Peer, Queue
from bench.compare.workload import Prepare, Timed

K = TypeVar("K")
T = TypeVar("T")

_MOST: Final = 100_000  # units, or calls, of a round
_PATIENCE: Final = 60.0  # seconds for the rounds of a workload
_FEWEST_ROUNDS: Final = 2  # even where they take longer


@dataclass(frozen=True)
class Timing:
    """Seconds a unit, of one peer: the best round, the median, the worst."""

    best: float
    median: float
    worst: float
    rounds: int
    note: str = ""

    @classmethod
    def of(cls, rounds: Sequence[float], note: str = "") -> Timing:
        return cls(min(rounds), statistics.median(rounds), max(rounds), len(rounds), note)

    def noted(self, note: str) -> Timing:
        return replace(self, note=note)


@dataclass(frozen=True)
class Result:
    """One workload, by peer; at one size where it is of a store that was filled before."""

    workload: str
    timings: dict[str, Timing]
    size: int | None = None


@dataclass(frozen=True)
class Place:
    """A peer's directory, and what is open there."""

    peer: Peer
    path: Path
    queue: Queue


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A new directory below `parent`, removed at the end."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=parent.resolve()) as place:
        yield Path(place)


@contextmanager
def served(peer: Peer, directory: Path) -> Iterator[Path]:
    """An empty directory for a peer, with what must run beside it; removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix=f"{peer.name.replace(' ', '-')}-", dir=directory))
    try:
        with peer.serve(path):
            yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def side_by_side(peers: Iterable[Peer], directory: Path, jobs: int) -> Iterator[list[Place]]:
    """All these peers without jobs, with room for so many."""
    with ExitStack() as stack:
        places = []
        for peer in peers:
            path = stack.enter_context(served(peer, directory))
            places.append(Place(peer, path, stack.enter_context(peer.open(path, jobs))))
        yield places


def take_turns(
    prepares: Mapping[K, Prepare],
    rounds: int,
    seconds: float,
    *,
    least: int = 1,
    most: int = _MOST,
    settled: bool = False,
) -> dict[K, Timing]:
    """Times rounds of about `seconds`, each of a multiple of `least` units, at most `most`;
    where `settled`, when everything is on the disk."""
    counts = {}
    for key, prepare in prepares.items():  # warms up, too
        spent, _ = _round(prepare(least), settled=False)
        counts[key] = max(1, min(int(seconds / spent), most // least)) * least
    times: dict[K, list[float]] = {key: [] for key in prepares}
    begun = time.monotonic()
    for number in range(rounds):
        if number >= _FEWEST_ROUNDS and time.monotonic() - begun > _PATIENCE:
            break
        for key in turn(tuple(prepares), number):
            spent, units = _round(prepares[key](counts[key]), settled=settled)
            times[key].append(spent / units)
    return {key: Timing.of(found) for key, found in times.items()}


def turn(items: Sequence[T], number: int) -> Sequence[T]:
    """The items, a different one first for each number."""
    first = number % len(items)
    return [*items[first:], *items[:first]]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without Python's garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _round(timed: Timed, *, settled: bool) -> tuple[float, int]:
    """Seconds and units."""
    if settled:
        os.sync()  # what others wrote is not to be paid for by this one's syncs
    with undisturbed():
        begun = time.perf_counter()
        units = timed()
        spent = time.perf_counter() - begun
    return spent, units
