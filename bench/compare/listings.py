"""Reading stores that hold more and more jobs: find, list by status and worker, count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.compare.harness import Place, Result, side_by_side, take_turns
from bench.compare.peer import Peer, Store
from bench.compare.peers import floor, ours, sqlite
from bench.compare.workload import Scale, Timed, Workload
from bench.data import BUSY, COMPLETED, QUEUED, RARE, RARE_JOBS, Data

LISTED: Final = (ours.FULL, ours.EPHEMERAL, floor.FULL, sqlite.FULL)
"""Durability has no bearing on reading, so the others are not filled as well."""

_FILL: Final = 10_000  # jobs a write
_LOOKUPS: Final = 1000
_PAGE: Final = 1000


@contextmanager
def filled(peers: Sequence[Peer], data: Data, directory: Path) -> Iterator[list[Place]]:
    """Stores that hold the jobs of `data`."""
    with side_by_side(peers, directory, data.size) as places:
        for place in places:
            for after in range(0, data.size, _FILL):
                place.queue.insert_many(place.queue.ready(data.rows(after, _FILL)))
            assert isinstance(place.queue, Store)
            place.queue.settle()
        yield places


def measure(
    workload: Workload, filled: Mapping[int, Sequence[Place]], scale: Scale
) -> list[Result]:
    """On stores that are filled already, by number of jobs: those of all sizes take turns, so
    that what is slower at a larger one is so because of its size."""
    timings = take_turns(
        {
            (size, place.peer.name): partial(workload.prepare, place.queue, scale)
            for size, places in filled.items()
            for place in places
        },
        scale.rounds,
        scale.seconds / 3,
    )
    return [
        Result(
            workload.key,
            {place.peer.name: timings[size, place.peer.name] for place in places},
            size,
        )
        for size, places in filled.items()
    ]


def _calls(work: Callable[[Store], int]) -> Callable[[Store, Scale, int], Timed]:
    """So many calls of a function that says how many units it has done."""

    def prepare(store: Store, scale: Scale, count: int) -> Timed:
        def timed() -> int:
            return sum(work(store) for _ in range(count))

        return timed

    return prepare


def _one(work: Callable[[Store], object]) -> Callable[[Store, Scale, int], Timed]:
    """So many calls, each a unit."""

    def prepare(store: Store, scale: Scale, count: int) -> Timed:
        def timed() -> int:
            for _ in range(count):
                work(store)
            return count

        return timed

    return prepare


def _find(store: Store, scale: Scale, count: int) -> Timed:
    ids = Data.sample(sum(store.counts()), _LOOKUPS)

    def timed() -> int:
        find = store.find
        for _ in range(count):
            for job_id in ids:
                find(job_id)
        return count * len(ids)

    return timed


def _paged(store: Store) -> int:
    seen = after = 0
    while ids := store.page_of_status(COMPLETED, after, _PAGE):
        seen += len(ids)
        after = ids[-1]
    return seen


_CHECKED: Final = "quelmdb verifies each checksum; the others hand back tuples, unchecked"

WORKLOADS: Final = (
    Workload(
        "of_worker_rare",
        f"all {RARE_JOBS} jobs of a worker that has no more",
        "listing",
        _one(lambda store: store.of_worker(RARE, RARE_JOBS)),
        remark="spread over the whole store; arguments untouched",
    ),
    Workload(
        "of_worker_busy",
        "the first 100 jobs of a busy worker",
        "listing",
        _one(lambda store: store.of_worker(BUSY, 100)),
        remark="arguments untouched",
    ),
    Workload("find", "find, at random, arguments decoded", "job", _find, remark=_CHECKED),
    Workload(
        "ids_of_status",
        "ids of a status",
        "id",
        _calls(lambda store: len(store.ids_of_status(COMPLETED))),
        remark="completed, into a list",
    ),
    Workload(
        "ids_paged",
        f"the same, in pages of {_PAGE:,}",
        "id",
        _calls(_paged),
    ),
    Workload(
        "ids_incomplete",
        "ids of three statuses, merged",
        "id",
        _calls(lambda store: len(store.incomplete_ids())),
        remark="scheduled, queued and started",
    ),
    Workload(
        "ids_of_worker",
        "ids of a worker, six statuses merged",
        "id",
        _calls(lambda store: len(store.ids_of_worker(BUSY))),
    ),
    Workload(
        "status_untouched",
        "jobs of a status, arguments untouched",
        "job",
        _calls(lambda store: store.iterate(QUEUED, decoded=False)),
        remark=f"queued, in a snapshot; {_CHECKED}",
    ),
    Workload(
        "status_decoded",
        "jobs of a status, arguments decoded",
        "job",
        _calls(lambda store: store.iterate(QUEUED, decoded=True)),
        remark=f"queued, in a snapshot; {_CHECKED}",
    ),
    Workload(
        "all_untouched",
        "all jobs, arguments untouched",
        "job",
        _calls(lambda store: store.iterate(None, decoded=False)),
        remark=f"in a snapshot; {_CHECKED}",
    ),
    Workload(
        "count_failed",
        "count a status",
        "call",
        _one(lambda store: store.count_failed()),
        remark="`len(store.failed())`",
    ),
    Workload(
        "counts",
        "count every status",
        "call",
        _one(lambda store: store.counts()),
        remark="`counts()`",
    ),
)
