"""MemoryStore: the contract on dictionaries, the reference that tests compare with.

Nothing outlives the object, and one process uses it: every claim has the owner 1,
and there is nobody to rescue from. Plain before fast: a listing, a count and a claim
look at every job.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar, Unpack

from quelmdb.codec import DEFAULT_LIMIT, Codec
from quelmdb.errors import (
    InvalidJobError,
    QuelmdbError,
    SnapshotEndedError,
    StoreClosedError,
    WrongThreadError,
)
from quelmdb.job import (
    ANY,
    AnyWorker,
    Job,
    Status,
    Worker,
    WorkerFilter,
    check_id,
    id_of,
    worker_name,
)
from quelmdb.persistence import Clock, IdView, JobStore, JobView, Page, Problem, Reader, Snapshot
from quelmdb.tables import Table, TableWrites, Transaction, claim, decoded, id_in, problems
from quelmdb.writes import Batch, OnConflict, Operation, Submit

_T = TypeVar("_T")

_PAGE: Final = 256  # jobs copied out at a time


class _MemoryReader(Reader):
    """Answers from a table, live or copied."""

    @abstractmethod
    def _read(self, question: Callable[[Table], _T]) -> _T:
        """The answer of the table. Raises where it may not be used any more."""

    def find(self, job_or_id: Job | int | None) -> Job | None:
        job_id = id_of(job_or_id)
        stored = self._read(lambda table: table.jobs.get(job_id) if job_id else None)
        return None if stored is None else decoded(stored)

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        self._read(lambda table: None)
        return _View(self._read, _select(statuses, worker, **page))

    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        selection = _select((), worker)
        return self._read(
            lambda table: {
                status: sum(job in selection and job.status is status for job in table.scan())
                for status in Status
            }
        )

    def workers(self) -> list[str | None]:
        names = self._read(lambda table: {job.worker for job in table.jobs.values()})
        return sorted(names, key=lambda name: (name is not None, name or ""))


class MemoryStore(_MemoryReader, JobStore):
    """A store in memory. `clock` tells microseconds since 1970; arguments and
    results have at most `argument_limit` bytes as CBOR."""

    def __init__(self, *, clock: Clock | None = None, argument_limit: int = DEFAULT_LIMIT) -> None:
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._writes = TableWrites(Codec(argument_limit))
        self._table = Table()
        self._lock = threading.RLock()
        self._closed = False

    def initialize(self) -> None:
        self._read(lambda table: None)

    def insert(self, job: Job) -> Job:
        stored: Job = self._run(self._writes.insert(job))
        return stored

    def insert_many(self, jobs: Iterable[Job]) -> list[Job]:
        stored: list[Job] = self._run(self._writes.insert_many(jobs))
        return stored

    def update(self, job: Job) -> Job:
        stored: Job = self._run(self._writes.update(job))
        return stored

    def update_many(self, jobs: Iterable[Job]) -> list[Job]:
        stored: list[Job] = self._run(self._writes.update_many(jobs))
        return stored

    def destroy(self, job_or_id: Job | int | None) -> None:
        self.destroy_many([job_or_id])

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        self._run(self._writes.destroy_many(jobs_or_ids))

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> list[Job]:
        stored: list[Job] = self._run(self._writes.restore(jobs, on_conflict))
        return stored

    def batch(self) -> Batch:
        self._read(lambda table: None)
        return Batch(self._writes, self._commit)

    @property
    def submit(self) -> Submit:
        self._read(lambda table: None)
        return Submit(self._writes, self._send)

    def snapshot(self) -> Snapshot:
        return _MemorySnapshot(self._read(Table.copy), self._read)

    def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        names = frozenset(map(worker_name, workers))
        claimed: list[Job] = self._run(partial(claim, names=names, limit=_natural("limit", limit)))
        return claimed

    def complete(self, job: Job, result: Any = None) -> Job:
        completed: Job = self._run(self._writes.complete(job, result))
        return completed

    def complete_many(self, jobs: Iterable[Job]) -> list[Job]:
        completed: list[Job] = self._run(self._writes.complete_many(jobs))
        return completed

    def fail(self, job: Job, error: str) -> Job:
        failed: Job = self._run(self._writes.fail(job, error))
        return failed

    def release(self, job: Job) -> Job:
        released: Job = self._run(self._writes.release(job))
        return released

    def rescue(self) -> list[Job]:
        """Nothing: the only process that can hold a job is the one that asks."""
        return self._read(lambda table: [])

    def check(self) -> list[Problem]:
        return self._read(lambda table: list(problems(table)))

    def close(self) -> None:
        self._closed = True

    def _read(self, question: Callable[[Table], _T]) -> _T:
        with self._lock:
            if self._closed:
                raise StoreClosedError("this MemoryStore was closed")
            return question(self._table)

    def _run(self, operation: Operation) -> Any:
        return self._commit([operation])[0]

    def _send(self, operation: Operation) -> Future[Any]:
        """It is done at once; there is nothing to wait for."""
        future: Future[Any] = Future()
        self._read(lambda table: None)
        try:
            future.set_result(self._run(operation))
        except QuelmdbError as error:
            future.set_exception(error)
        return future

    def _commit(self, operations: Sequence[Operation]) -> list[Any]:
        def run(table: Table) -> list[Any]:
            transaction = Transaction(table, self._clock())
            results = [operation(transaction) for operation in operations]
            transaction.apply()
            return results

        return self._read(run)


class _MemorySnapshot(_MemoryReader, Snapshot):
    def __init__(self, table: Table, store: Callable[[Callable[[Table], None]], None]) -> None:
        self._table = table
        self._store = store
        self._thread = threading.current_thread()
        self._ended = False

    def close(self) -> None:
        self._check_thread()
        self._ended = True

    def _read(self, question: Callable[[Table], _T]) -> _T:
        if self._ended:
            raise SnapshotEndedError("this snapshot has ended; take another one")
        self._check_thread()
        self._store(lambda table: None)  # raises where the store was closed
        return question(self._table)

    def _check_thread(self) -> None:
        if threading.current_thread() is not self._thread:
            raise WrongThreadError("a snapshot is used in the thread that took it, no other")


# --- Listings ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Selection:
    statuses: frozenset[Status]
    worker: str | AnyWorker | None
    after: int | None
    limit: int | None
    reverse: bool

    def __contains__(self, job: Job) -> bool:
        return job.status in self.statuses and self.worker in (ANY, job.worker)


def _select(
    statuses: Sequence[Status | str],
    worker: WorkerFilter,
    after: int | None = None,
    limit: int | None = None,
    reverse: bool = False,
) -> _Selection:
    return _Selection(
        frozenset(map(_status, statuses or Status)),
        worker if isinstance(worker, AnyWorker) else worker_name(worker),
        check_id(after) if after else None if after is None else _natural("after", after),
        None if limit is None else _natural("limit", limit),
        reverse,
    )


def _status(status: Status | str) -> Status:
    try:
        return Status(status)
    except ValueError:
        raise InvalidJobError(
            f"unknown status {status!r}; known are {', '.join(Status)}", found=status
        ) from None


def _natural(name: str, value: int) -> int:
    if type(value) is not int or value < 0:
        raise InvalidJobError(f"{name} is an int from 0, not {value!r}", found=value)
    return value


class _View(JobView):
    def __init__(
        self, read: Callable[[Callable[[Table], Any]], Any], selection: _Selection
    ) -> None:
        self._read = read
        self._selection = selection

    def __iter__(self) -> Iterator[Job]:
        return map(decoded, self.stored())

    def __len__(self) -> int:
        return len(self._page(self._selection.after, self._selection.limit))

    def ids(self) -> IdView:
        return _Ids(self)

    def stored(self) -> Iterator[Job]:
        """The listing with arguments still encoded."""
        after, left = self._selection.after, self._selection.limit
        while page := self._page(after, _PAGE if left is None else min(left, _PAGE)):
            for job in page:
                yield job
                self._read(lambda table: None)  # raises where the store or snapshot ended
            after = page[-1].id
            left = None if left is None else left - len(page)

    def _page(self, after: int | None, limit: int | None) -> list[Job]:
        def page(table: Table) -> list[Job]:
            found = (
                job for job in table.scan(after, self._selection.reverse) if job in self._selection
            )
            return list(islice(found, limit))

        jobs: list[Job] = self._read(page)
        return jobs


class _Ids:
    def __init__(self, view: _View) -> None:
        self._view = view

    def __iter__(self) -> Iterator[int]:
        return map(id_in, self._view.stored())

    def __len__(self) -> int:
        return len(self._view)
