"""A store that is closed and opened again before every read, so that what it answers
comes from the disk and from nothing that an object remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import quelmdb
from quelmdb.events import Hook
from quelmdb.job import Job
from quelmdb.persistence import Clock, JobStore, Problem
from quelmdb.reader import IdView, JobView, Page, Snapshot
from quelmdb.requests import FutureRequest
from quelmdb.status import Status
from quelmdb.values import ANY, Worker, WorkerFilter
from quelmdb.writes import Batch, OnConflict, OnDuplicate, Submit

T = TypeVar("T")


class ReopeningStore(JobStore):
    """`reopened` counts how often it was. It stays open where closing it would show:
    while this process holds jobs, a snapshot is open, or an iteration is half way."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._users = 0  # snapshots and iterations
        self._closed = False
        self._hooks: list[Hook] = []
        self.store = quelmdb.open(path, clock=clock)
        self.reopened = 0

    def read(self, question: Callable[[quelmdb.Store], T]) -> T:
        """The answer of the store after it was opened again."""
        with self._lock:
            if not (self._users or self._closed or self._holds_jobs()):
                self.store.close()
                self.store = quelmdb.open(self._path, clock=self._clock)
                for hook in self._hooks:
                    self.store.listen(hook)
                self.reopened += 1
            return question(self.store)

    def read_on(self, question: Callable[[quelmdb.Store], T]) -> T:
        """As `read`; afterwards the store stays open until `leave`."""
        with self._lock:
            answer = self.read(question)
            self._users += 1
            return answer

    def leave(self) -> None:
        with self._lock:
            self._users -= 1

    def _holds_jobs(self) -> bool:
        return any(job.owner for job in self.store.jobs(Status.STARTED))

    def find(self, job_or_id: Job | int | None) -> Job | None:
        return self.read(lambda store: store.find(job_or_id))

    def started_at(self, job_or_id: Job | int | None) -> datetime | None:
        return self.read(lambda store: store.started_at(job_or_id))

    def jobs(
        self, *statuses: Status | str, worker: WorkerFilter = ANY, **page: Unpack[Page]
    ) -> JobView:
        def view(store: quelmdb.Store) -> JobView:
            return store.jobs(*statuses, worker=worker, **page)

        with self._lock:
            view(self.store)  # raises for bad input
            return _View(self, view)

    def counts(self, worker: WorkerFilter = ANY) -> dict[Status, int]:
        return self.read(lambda store: store.counts(worker))

    def workers(self) -> list[str | None]:
        return self.read(lambda store: store.workers())

    def check(self) -> list[Problem]:
        return self.read(lambda store: store.check())

    def snapshot(self) -> Snapshot:
        snapshot = self.read_on(lambda store: store.snapshot())
        close, leave = snapshot.close, [self.leave]

        def close_and_leave() -> None:
            close()
            if leave:
                leave.pop()()

        snapshot.close = close_and_leave  # type: ignore[method-assign]
        return snapshot

    def initialize(self) -> None:
        self._write(lambda store: store.initialize())

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Job:
        return self._write(lambda store: store.insert(job, on_duplicate))

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise") -> list[Job]:
        given = list(jobs)  # they may come from a view of this store
        return self._write(lambda store: store.insert_many(given, on_duplicate))

    def update(self, job: Job) -> Job:
        return self._write(lambda store: store.update(job))

    def update_many(self, jobs: Iterable[Job]) -> list[Job]:
        given = list(jobs)
        return self._write(lambda store: store.update_many(given))

    def destroy(self, job_or_id: Job | int | None) -> None:
        self._write(lambda store: store.destroy(job_or_id))

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        given = list(jobs_or_ids)
        self._write(lambda store: store.destroy_many(given))

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> list[Job]:
        given = list(jobs)
        return self._write(lambda store: store.restore(given, on_conflict))

    def batch(self) -> Batch:
        # Verbs are prepared without the store; the commit finds the one that is open then.
        with self._lock:
            batch = self.store.batch()
        batch._commit = lambda verbs: self._write(lambda store: store._commit_all(verbs))
        return batch

    @property
    def submit(self) -> Submit:
        with self._lock:
            submit = self.store.submit
        submit._send = lambda verb: self._write(
            lambda store: store._send(FutureRequest, verb).future
        )
        return submit

    def claim(self, *workers: Worker, limit: int = 1) -> list[Job]:
        return self._write(lambda store: store.claim(*workers, limit=limit))

    def complete(self, job: Job, result: Any = None) -> Job:
        return self._write(lambda store: store.complete(job, result))

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None = None) -> list[Job]:
        given, of_them = list(jobs), None if results is None else list(results)
        return self._write(lambda store: store.complete_many(given, of_them))

    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None = None) -> Job:
        return self._write(lambda store: store.fail(job, error, retry_at))

    def release(self, job: Job) -> Job:
        return self._write(lambda store: store.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Job:
        return self._write(lambda store: store.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> Job:
        return self._write(lambda store: store.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        given = list(jobs_or_ids)
        return self._write(lambda store: store.cancel_many(given))

    def cancel_requested(self, job: Job) -> bool:
        return self._write(lambda store: store.cancel_requested(job))

    def retry(self, job_or_id: Job | int) -> Job:
        return self._write(lambda store: store.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> list[Job]:
        given = list(jobs_or_ids)
        return self._write(lambda store: store.retry_many(given))

    def pause(self, worker: Worker) -> None:
        self._write(lambda store: store.pause(worker))

    def resume(self, worker: Worker) -> None:
        self._write(lambda store: store.resume(worker))

    def paused(self) -> list[str | None]:
        return self._write(lambda store: store.paused())

    def next_due(self) -> datetime | None:
        return self._write(lambda store: store.next_due())

    def prune(
        self,
        *statuses: Status | str,
        worker: WorkerFilter = ANY,
        older_than: timedelta | None = None,
        keep: int | None = None,
    ) -> int:
        return self._write(
            lambda store: store.prune(*statuses, worker=worker, older_than=older_than, keep=keep)
        )

    def wait(self, *workers: Worker, timeout: float | None = None) -> bool:
        store = self.read_on(lambda store: store)  # not under the lock: others are to write
        try:
            return store.wait(*workers, timeout=timeout)
        finally:
            self.leave()

    def listen(self, hook: Hook) -> Callable[[], None]:
        with self._lock:
            self._hooks.append(hook)
            self.store.listen(hook)
        return lambda: self._unlisten(hook)

    def _unlisten(self, hook: Hook) -> None:
        with self._lock:
            if hook in self._hooks:
                self._hooks.remove(hook)
                self.store._committer.listeners.hooks.remove(hook)

    def rescue(self) -> list[Job]:
        return self._write(lambda store: store.rescue())

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        with self._lock:  # not while it is being opened again
            self._closed = True
            self.store.close()

    def _write(self, verb: Callable[[quelmdb.Store], T]) -> T:
        with self._lock:
            return verb(self.store)


class _View(JobView):
    def __init__(self, store: ReopeningStore, view: Callable[[quelmdb.Store], JobView]) -> None:
        self._store = store
        self._view = view

    def __iter__(self) -> Iterator[Job]:
        return self._iterate(lambda view: view)

    def __len__(self) -> int:
        return self._store.read(lambda store: len(self._view(store)))

    def ids(self) -> IdView:
        return _Ids(self)

    def iterate_ids(self) -> Iterator[int]:
        return self._iterate(lambda view: view.ids())

    def _iterate(self, part: Callable[[JobView], Iterable[T]]) -> Iterator[T]:
        items = self._store.read_on(lambda store: iter(part(self._view(store))))
        try:
            yield from items
        finally:
            self._store.leave()


class _Ids:
    def __init__(self, view: _View) -> None:
        self._view = view

    def __iter__(self) -> Iterator[int]:
        return self._view.iterate_ids()

    def __len__(self) -> int:
        return len(self._view)
