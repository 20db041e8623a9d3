"""What is measured.

A workload is a context manager that prepares one round on a contestant (not timed), yields
what is timed, a function that does the work and returns how many units it did, and then
undoes it (not timed), so that every round begins with the same jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench.contestant import Contestant
from bench.data import BUSY, COMPLETED, FAILED, RARE, RARE_JOBS, Data, Row

Timed = Callable[[], int]
Round = Callable[[Contestant, Data], AbstractContextManager[Timed]]

SINGLE_WRITES: Final = 300  # each waits for the disk
BATCHES: Final = 20
BATCH: Final = 100
LOOKUPS: Final = 1000


@dataclass(frozen=True)
class Workload:
    """One line of the report."""

    key: str
    title: str
    unit: str
    """What the time is for, in the singular."""
    round: Round
    empty: bool = False
    """It begins with an empty store, not with one that is filled."""
    repeatable: bool = False
    """It changes nothing and may be quick, so it is repeated within a round."""
    remark: str = ""


# --- Writes -----------------------------------------------------------------


@contextmanager
def _insert_each(store: Contestant, data: Data) -> Iterator[Timed]:
    rows = data.rows[:SINGLE_WRITES]
    made: list[Any] = []

    def timed() -> int:
        insert = store.insert
        for row in rows:
            made.append(insert(row))
        return len(rows)

    yield timed
    _destroy(store, made)


@contextmanager
def _insert_batches(store: Contestant, data: Data) -> Iterator[Timed]:
    batches = _batches(data.rows[: BATCHES * BATCH])
    made: list[Any] = []

    def timed() -> int:
        for rows in batches:
            made.extend(store.insert_many(store.ready(rows)))
        return len(made)

    yield timed
    _destroy(store, made)


@contextmanager
def _insert_all(store: Contestant, data: Data) -> Iterator[Timed]:
    ready = store.ready(data.rows)
    yield lambda: len(store.insert_many(ready))


@contextmanager
def _make_and_insert_all(store: Contestant, data: Data) -> Iterator[Timed]:
    yield lambda: len(store.insert_many(store.ready(data.rows)))


@contextmanager
def _update_each(store: Contestant, data: Data) -> Iterator[Timed]:
    changes = _changes(data, SINGLE_WRITES)

    def timed() -> int:
        update = store.update
        for job_id, row in changes:
            update(job_id, row)
        return len(changes)

    yield timed
    _put_back(store, data, [job_id for job_id, _ in changes])


@contextmanager
def _update_batches(store: Contestant, data: Data) -> Iterator[Timed]:
    changes = _changes(data, BATCHES * BATCH)
    batches = _batches(changes)

    def timed() -> int:
        for batch in batches:
            store.update_many(batch)
        return len(changes)

    yield timed
    _put_back(store, data, [job_id for job_id, _ in changes])


@contextmanager
def _claim_each(store: Contestant, data: Data) -> Iterator[Timed]:
    count = min(SINGLE_WRITES, len(data.queued))

    def timed() -> int:
        for _ in range(count):
            (job,) = store.claim(1)
            store.complete(job)
        return count

    yield timed
    _put_back(store, data, data.queued[:count])


@contextmanager
def _claim_batches(store: Contestant, data: Data) -> Iterator[Timed]:
    batches = min(BATCHES, len(data.queued) // BATCH)
    done = 0

    def timed() -> int:
        nonlocal done
        for _ in range(batches):
            jobs = store.claim(BATCH)
            store.complete_many(jobs)
            done += len(jobs)
        return done

    yield timed
    _put_back(store, data, data.queued[:done])


def _batches(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _changes(data: Data, count: int) -> list[tuple[int, Row]]:
    """Completed jobs that fail after all, and failed ones that are completed."""
    other = {COMPLETED: FAILED, FAILED: COMPLETED}
    changes = []
    for job_id in data.sample(data.ids_of((COMPLETED, FAILED)), count):
        worker, arguments, status = data.row(job_id)
        changes.append((job_id, (worker, arguments, other[status])))
    return changes


def _destroy(store: Contestant, made: Sequence[Any]) -> None:
    store.destroy_many([store.id_of(job) for job in made])


def _put_back(store: Contestant, data: Data, ids: Sequence[int]) -> None:
    store.update_many([(job_id, data.row(job_id)) for job_id in ids])


# --- Reads ------------------------------------------------------------------


@contextmanager
def _find(store: Contestant, data: Data) -> Iterator[Timed]:
    ids = data.sample(list(range(1, data.size + 1)), LOOKUPS)

    def timed() -> int:
        find = store.find
        for job_id in ids:
            find(job_id)
        return len(ids)

    yield timed


def _reading(work: Callable[[Contestant, Data], int]) -> Round:
    @contextmanager
    def round(store: Contestant, data: Data) -> Iterator[Timed]:
        yield lambda: work(store, data)

    return round


def _calling(work: Callable[[Contestant], object], times: int = 20) -> Round:
    """A call that is quick: a few of them in one timed function."""

    @contextmanager
    def round(store: Contestant, data: Data) -> Iterator[Timed]:
        def timed() -> int:
            for _ in range(times):
                work(store)
            return times

        yield timed

    return round


_TWO_SYNCS: Final = "LMDB syncs twice a commit, SQLite once"
_CHECKED: Final = "each checksum is verified; the others hand back tuples, unchecked"

WORKLOADS: Final = (
    Workload("insert_each", "insert, one by one", "job", _insert_each, remark=_TWO_SYNCS),
    Workload(
        "insert_batches", "insert_many, batches of 100", "job", _insert_batches, remark=_TWO_SYNCS
    ),
    Workload(
        "insert_all",
        "insert_many, all at once, into an empty store",
        "job",
        _insert_all,
        empty=True,
        remark="the `Job`s were made before",
    ),
    Workload(
        "make_and_insert_all",
        "the same, with making the `Job`s",
        "job",
        _make_and_insert_all,
        empty=True,
        remark="from plain values, as the others take them",
    ),
    Workload("find", "find, at random, arguments decoded", "job", _find, repeatable=True),
    Workload("update_each", "update, one by one", "job", _update_each, remark=_TWO_SYNCS),
    Workload(
        "update_batches", "update_many, batches of 100", "job", _update_batches, remark=_TWO_SYNCS
    ),
    Workload(
        "claim_each",
        "claim and complete, one by one",
        "job",
        _claim_each,
        remark=f"two commits a job; {_TWO_SYNCS}",
    ),
    Workload(
        "claim_batches",
        "claim and complete, batches of 100",
        "job",
        _claim_batches,
        remark=f"two commits a batch; {_TWO_SYNCS}",
    ),
    Workload(
        "iterate",
        "all jobs in a snapshot, arguments untouched",
        "job",
        _reading(lambda store, data: store.iterate()),
        repeatable=True,
        remark=_CHECKED,
    ),
    Workload(
        "iterate_arguments",
        "all jobs in a snapshot, arguments decoded",
        "job",
        _reading(lambda store, data: store.iterate_arguments()),
        repeatable=True,
        remark=_CHECKED,
    ),
    Workload(
        "jobs_of_rare",
        f"all jobs of a worker that has {RARE_JOBS}",
        "listing",
        _calling(lambda store: store.jobs_of(RARE, RARE_JOBS)),
        repeatable=True,
        remark="spread over the whole store",
    ),
    Workload(
        "jobs_of_busy",
        "the first 100 jobs of a busy worker",
        "listing",
        _calling(lambda store: store.jobs_of(BUSY, 100)),
        repeatable=True,
    ),
    Workload(
        "ids_of_status",
        "ids of one status (completed)",
        "id",
        _reading(lambda store, data: len(store.ids_of_status(COMPLETED))),
        repeatable=True,
    ),
    Workload(
        "incomplete_ids",
        "ids, three statuses merged (incomplete)",
        "id",
        _reading(lambda store, data: len(store.incomplete_ids())),
        repeatable=True,
    ),
    Workload(
        "ids_of_worker",
        "ids, six statuses merged (all of a worker)",
        "id",
        _reading(lambda store, data: len(store.ids_of_worker(BUSY))),
        repeatable=True,
    ),
    Workload(
        "count_failed",
        "`len(store.failed())`",
        "call",
        _calling(lambda store: store.count_failed()),
        repeatable=True,
    ),
    Workload(
        "counts", "`counts()`", "call", _calling(lambda store: store.counts()), repeatable=True
    ),
)
