"""Writes apart from their transactions: checked and encoded, and then recorded for one
transaction (`Batch`), or sent on their way without waiting for it (`Submit`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from quelmdb.errors import BatchError
from quelmdb.job import Job
from quelmdb.values import Worker

OnConflict = Literal["error", "skip", "replace"]
"""Of ids that are taken."""

OnDuplicate = Literal["raise", "skip", "replace"]
"""Of unique keys that are taken."""

Operation = Callable[[Any], Any]
"""A write that is checked and encoded, and takes a store's open transaction."""


class Writes(Protocol):
    """The writes of a store as operations: each method raises for bad input at
    once, and returns what is left to be done inside the transaction."""

    def insert(self, job: Job, on_duplicate: OnDuplicate) -> Operation: ...

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate) -> Operation: ...

    def update(self, job: Job) -> Operation: ...

    def update_many(self, jobs: Iterable[Job]) -> Operation: ...

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> Operation: ...

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict) -> Operation: ...

    def complete(self, job: Job, result: Any) -> Operation: ...

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None) -> Operation: ...

    def fail(
        self, job: Job, error: str | BaseException, retry_at: datetime | None
    ) -> Operation: ...

    def release(self, job: Job) -> Operation: ...

    def progress(self, job: Job, done: int, total: int | None, note: str | None) -> Operation: ...

    def cancel(self, job_or_id: Job | int) -> Operation: ...

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> Operation: ...

    def retry(self, job_or_id: Job | int) -> Operation: ...

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> Operation: ...

    def pause(self, worker: Worker) -> Operation: ...

    def resume(self, worker: Worker) -> Operation: ...


class Recorder:
    """Writes that are recorded, to be applied in one transaction.

    Bad input raises at the call; what only the store can know (an id that is
    taken, a stale claim) raises at the end of the block.
    """

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._recorded: list[Operation] | None = None  # None outside of the block
        self.results: list[Any] = []
        """After the block: what each call would have returned from the store, in order."""

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> None:
        self._record(self._writes.insert(job, on_duplicate))

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise") -> None:
        self._record(self._writes.insert_many(jobs, on_duplicate))

    def update(self, job: Job) -> None:
        self._record(self._writes.update(job))

    def update_many(self, jobs: Iterable[Job]) -> None:
        self._record(self._writes.update_many(jobs))

    def destroy(self, job_or_id: Job | int | None) -> None:
        self._record(self._writes.destroy_many([job_or_id]))

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> None:
        self._record(self._writes.destroy_many(jobs_or_ids))

    def complete(self, job: Job, result: Any = None) -> None:
        self._record(self._writes.complete(job, result))

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None = None) -> None:
        self._record(self._writes.complete_many(jobs, results))

    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None = None) -> None:
        self._record(self._writes.fail(job, error, retry_at))

    def release(self, job: Job) -> None:
        self._record(self._writes.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> None:
        self._record(self._writes.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> None:
        self._record(self._writes.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> None:
        self._record(self._writes.cancel_many(jobs_or_ids))

    def retry(self, job_or_id: Job | int) -> None:
        self._record(self._writes.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> None:
        self._record(self._writes.retry_many(jobs_or_ids))

    def pause(self, worker: Worker) -> None:
        self._record(self._writes.pause(worker))

    def resume(self, worker: Worker) -> None:
        self._record(self._writes.resume(worker))

    def _record(self, operation: Operation) -> None:
        if self._recorded is None:
            raise BatchError("a batch takes writes inside of its `with` block alone")
        self._recorded.append(operation)

    def _begin(self) -> None:
        if self._recorded is not None:
            raise BatchError("this batch is being recorded already")
        self._recorded = []
        self.results = []

    def _end(self) -> list[Operation]:
        recorded, self._recorded = self._recorded, None
        return recorded or []


class Batch(Recorder):
    """Writes that are recorded, and applied in one transaction when the `with`
    block ends: all of them, in order, or none. Where the block itself raises,
    nothing is applied.
    """

    def __init__(self, writes: Writes, commit: Callable[[Sequence[Operation]], list[Any]]) -> None:
        super().__init__(writes)
        self._commit = commit

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        recorded = self._end()
        if kind is None and recorded:
            self.results = self._commit(recorded)


class Submit:
    """Writes that are not waited for: one thread can have many on their way.

    Bad input raises at the call. What it returns becomes what the method of that name
    returns from the store, once that is as durable as the store makes it, or raises what
    that would raise. Writes of one thread are applied in the order of their calls. One
    that is cancelled before it is begun does not happen. Callbacks are called in
    another thread, in which nothing else is committed meanwhile; a write that such a callback
    waits for comes before what it has submitted.
    """

    def __init__(self, writes: Writes, send: Callable[[Operation], Future[Any]]) -> None:
        self._writes = writes
        self._send = send

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Future[Job]:
        return self._send(self._writes.insert(job, on_duplicate))

    def insert_many(
        self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise"
    ) -> Future[list[Job]]:
        return self._send(self._writes.insert_many(jobs, on_duplicate))

    def update(self, job: Job) -> Future[Job]:
        return self._send(self._writes.update(job))

    def update_many(self, jobs: Iterable[Job]) -> Future[list[Job]]:
        return self._send(self._writes.update_many(jobs))

    def destroy(self, job_or_id: Job | int | None) -> Future[None]:
        return self._send(self._writes.destroy_many([job_or_id]))

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> Future[None]:
        return self._send(self._writes.destroy_many(jobs_or_ids))

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict = "error") -> Future[list[Job]]:
        return self._send(self._writes.restore(jobs, on_conflict))

    def complete(self, job: Job, result: Any = None) -> Future[Job]:
        return self._send(self._writes.complete(job, result))

    def complete_many(
        self, jobs: Iterable[Job], results: Iterable[Any] | None = None
    ) -> Future[list[Job]]:
        return self._send(self._writes.complete_many(jobs, results))

    def fail(
        self, job: Job, error: str | BaseException, retry_at: datetime | None = None
    ) -> Future[Job]:
        return self._send(self._writes.fail(job, error, retry_at))

    def release(self, job: Job) -> Future[Job]:
        return self._send(self._writes.release(job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Future[Job]:
        return self._send(self._writes.progress(job, done, total, note))

    def cancel(self, job_or_id: Job | int) -> Future[Job]:
        return self._send(self._writes.cancel(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> Future[list[Job]]:
        return self._send(self._writes.cancel_many(jobs_or_ids))

    def retry(self, job_or_id: Job | int) -> Future[Job]:
        return self._send(self._writes.retry(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> Future[list[Job]]:
        return self._send(self._writes.retry_many(jobs_or_ids))

    def pause(self, worker: Worker) -> Future[None]:
        return self._send(self._writes.pause(worker))

    def resume(self, worker: Worker) -> Future[None]:
        return self._send(self._writes.resume(worker))
