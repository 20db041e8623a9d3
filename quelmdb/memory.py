"""MemoryStore: the contract on dictionaries, the reference that tests compare with.

Nothing outlives the process, and one process uses it: there is nobody to rescue from but
the store that one was `reopened` from. Plain before fast: a listing, a count and a claim
look at every job.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, Unpack

from quelmdb import tablemoves
from quelmdb.codec import DEFAULT_LIMIT, Codec
from quelmdb.errors import (
    InvalidJobError,
    QuelmdbError,
    SnapshotEndedError,
    StoreClosedError,
    WrongThreadError,
)
from quelmdb.events import Event, Hook
from quelmdb.job import Job, id_of
from quelmdb.persistence import Clock, JobStore, Problem
from quelmdb.reader import JobView, Page, Reader, Snapshot
from quelmdb.status import ENDED, Status
from quelmdb.tables import (
    NO_HOLD,
    Table,
    Transaction,
    View,
    decoded,
    held_by_others,
    id_in,
    may_claim,
    natural,
    next_due,
    problems,
    select,
    sorted_names,
)
from quelmdb.tablewrites import TableWrites, held
from quelmdb.values import ANY, Worker, WorkerFilter, time_of, worker_name
from quelmdb.writes import Batch, OnConflict, OnDuplicate, Operation, Submit

_T = TypeVar("_T")

_logger = logging.getLogger("quelmdb")

_LOOK_SECONDS: Final = 1.0  # after which who waits looks again: the clock may have been moved


class _MemoryReader(Reader):
    """Answers from a table, live or copied."""

    @abstractmethod
    def _read(self, question: Callable[[Table], _T]) -> _T:
        """The answer of the table. Raises where it may not be used any more."""

    def find(self, job_or_id: Job | int | None) -> Job | None:
        job_id = id_of(job_or_id)
        stored = self._read(lambda table: table.jobs.get(job_id) if job_id else None)
        return None if stored is None else decoded(stored)

    def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        job_id = id_of(job_or_id)
        return self._read(lambda table: table.started_at(job_id) if job_id else None)

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        self._read(lambda table: None)
        return View(self._read, select(statuses, worker, **page))

    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        selection = select((), worker)
        return self._read(
            lambda table: {
                status: sum(job in selection and job.status is status for job in table.scan())
                for status in Status
            }
        )

    def workers(self) -> list[str | None]:
        names = self._read(lambda table: {job.worker for job in table.jobs.values()})
        return sorted_names(names)


class MemoryStore(_MemoryReader, JobStore):
    """A store in memory. `clock` tells microseconds since 1970; arguments and
    results have at most `argument_limit` bytes as CBOR."""

    def __init__(self, *, clock: Clock | None = None, argument_limit: int = DEFAULT_LIMIT) -> None:
        self._clock = clock or (lambda: time.time_ns() // 1000)
        self._writes = TableWrites(Codec(argument_limit))
        self._table = Table()
        self._owner = 1
        self._hooks: tuple[_Listener, ...] = ()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False

    def reopened(self) -> MemoryStore:
        """Closes this one, and returns another one with the same jobs, in which nobody holds
        what this one held: as a store that is closed and opened again."""
        self.close()
        store = MemoryStore(clock=self._clock)
        store._writes, store._table, store._owner = self._writes, self._table, self._owner + 1
        return store

    def initialize(self) -> None:
        self._read(lambda table: None)

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        return self._job(self._writes.insert(job, on_duplicate))

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise") -> list[Job]:
        return self._jobs(self._writes.insert_many(jobs, on_duplicate))

    def update(self, job: Job) -> Job:
        return self._job(self._writes.update(job))

    def update_many(self, jobs: Iterable[Job]) -> list[Job]:
        return self._jobs(self._writes.update_many(jobs))

    def destroy(self, job_or_id: Job | int | None) -> None:
        self.destroy_many([job_or_id])

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        self._run(self._writes.destroy_many(jobs_or_ids))

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> list[Job]:
        return self._jobs(self._writes.restore(jobs, on_conflict))

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
        claim = partial(tablemoves.claim, names=names, limit=natural("limit", limit))
        self._rescue_any()
        return self._jobs(claim)

    def wait(self, *workers: Worker, timeout: float | None = None) -> bool:
        names = frozenset(map(worker_name, workers))
        end = _deadline(timeout)
        self._rescue_any()  # there are none to come: nobody else uses the table
        with self._changed:
            while not self._read(lambda table: self._has_some(table, names)):
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, self._read(self._idle_seconds)))
        return True

    def next_due(self) -> datetime | None:
        return self._read(next_due)

    def complete(self, job: Job, result: Any = None) -> Job:
        return self._job(self._writes.complete(job, result))

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None = None) -> list[Job]:
        return self._jobs(self._writes.complete_many(jobs, results))

    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None = None) -> Job:
        return self._job(self._writes.fail(job, error, retry_at))

    def release(self, job: Job) -> Job:
        return self._job(self._writes.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Job:
        return self._job(self._writes.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> Job:
        return self._job(self._writes.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        return self._jobs(self._writes.cancel_many(jobs_or_ids))

    def cancel_requested(self, job: Job) -> bool:
        job_id, claim = id_in(held(job)), job.claim

        def is_requested(table: Table) -> bool:
            stored = table.jobs.get(job_id)
            if stored is None or stored.status is not Status.STARTED or stored.claim != claim:
                return True
            return table.holds.get(job_id, NO_HOLD).is_cancelled

        return self._read(is_requested)

    def retry(self, job_or_id: Job | int) -> Job:
        return self._job(self._writes.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        return self._jobs(self._writes.retry_many(jobs_or_ids))

    def pause(self, worker: Worker) -> None:
        self._run(self._writes.pause(worker))

    def resume(self, worker: Worker) -> None:
        self._run(self._writes.resume(worker))

    def paused(self) -> list[str | None]:
        return self._read(lambda table: sorted_names(table.paused))

    def rescue(self) -> list[Job]:
        """What was held by the store that this one was reopened from."""
        return self._jobs(tablemoves.rescue)

    def prune(
        self,
        *statuses: Status | str,
        worker: WorkerFilter = ANY,
        older_than: timedelta | None = None,
        keep: int | None = None,
    ) -> int:
        chosen = select(statuses or ENDED, worker)
        if not chosen.statuses <= {*ENDED}:
            raise InvalidJobError(f"what has ended is pruned: {', '.join(ENDED)}")
        kept = 0 if keep is None else natural("keep", keep)
        age = None if older_than is None else _microseconds(older_than)

        def prune(transaction: Transaction) -> int:
            return tablemoves.prune(transaction, chosen, age, kept)

        pruned: int = self._run(prune)
        return pruned

    def listen(self, hook: Hook) -> Callable[[], None]:
        listener = _Listener(hook)

        def end() -> None:
            with self._lock:
                self._hooks = tuple(other for other in self._hooks if other is not listener)

        with self._lock:
            self._read(lambda table: None)
            self._hooks = (*self._hooks, listener)
        return end

    def check(self) -> list[Problem]:
        return self._read(lambda table: list(problems(table)))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read(self, question: Callable[[Table], _T]) -> _T:
        with self._lock:
            if self._closed:
                raise StoreClosedError("this MemoryStore was closed")
            return question(self._table)

    def _rescue_any(self) -> None:
        if self._read(lambda table: any(held_by_others(table, self._owner))):
            self.rescue()

    def _has_some(self, table: Table, names: frozenset[str | None]) -> bool:
        now = time_of(self._clock())
        return any(may_claim(job, names, table.paused, now) for job in table.jobs.values())

    def _idle_seconds(self, table: Table) -> float:
        """How long a look would find no more than the last one, as the clock goes now."""
        now = time_of(self._clock())
        to_come = (
            (job.run_at - now).total_seconds()
            for job in table.jobs.values()
            if job.status is Status.SCHEDULED and job.run_at is not None and job.run_at > now
        )
        return min([_LOOK_SECONDS, *to_come])

    def _job(self, operation: Operation) -> Job:
        job: Job = self._run(operation)
        return job

    def _jobs(self, operation: Operation) -> list[Job]:
        jobs: list[Job] = self._run(operation)
        return jobs

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
        def run(table: Table) -> tuple[list[Any], list[Event], tuple[_Listener, ...]]:
            transaction = Transaction(table, self._clock(), self._owner, bool(self._hooks))
            results = [operation(transaction) for operation in operations]
            transaction.apply()
            self._changed.notify_all()
            return results, transaction.events, self._hooks

        results, events, hooks = self._read(run)
        for event in events:
            for listener in hooks:
                listener.tell(event)
        return results


class _Listener:
    """A hook, once for each time that it was handed in."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def tell(self, event: Event) -> None:
        try:
            self._hook(event)
        except Exception:
            _logger.exception("a hook has raised, told of job %s: %s", event.job.id, event.kind)


def _deadline(timeout: float | None) -> float:
    """When a wait ends, by `time.monotonic`."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidJobError(
            f"a timeout is None or a number of seconds from 0, not {timeout!r}", found=timeout
        )
    return time.monotonic() + timeout


def _microseconds(age: timedelta) -> int:
    if not isinstance(age, timedelta) or age < timedelta(0):
        raise InvalidJobError(f"older_than is a timedelta from 0, not {age!r}", found=age)
    return age // timedelta(microseconds=1)


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
