"""The writes of a MemoryStore, checked and encoded, for its transactions."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any, get_args

from quelmdb import tablemoves as moves
from quelmdb.codec import Codec
from quelmdb.errors import DuplicateJobError, InvalidJobError, InvalidTransitionError
from quelmdb.job import Job, id_of
from quelmdb.options import progress_of
from quelmdb.status import ENDED
from quelmdb.tables import Transaction
from quelmdb.values import (
    MAX_CHOSEN_ID,
    Worker,
    check_id,
    error_text,
    microseconds,
    time_of,
    worker_name,
)
from quelmdb.writes import OnConflict, OnDuplicate, Operation


class TableWrites:
    """The writes as operations on a `Transaction` (`quelmdb.writes.Writes`)."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def insert(self, job: Job, on_duplicate: OnDuplicate) -> Operation:
        (insert,) = self._inserts([job], on_duplicate)
        return insert

    def insert_many(self, jobs: Iterable[Job], on_duplicate: OnDuplicate) -> Operation:
        return _all_of(self._inserts(jobs, on_duplicate))

    def update(self, job: Job) -> Operation:
        return partial(moves.update, job=self._encoded(job))

    def update_many(self, jobs: Iterable[Job]) -> Operation:
        return _all_of([self.update(job) for job in jobs])

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> Operation:
        ids = [job_id for job_id in map(id_of, jobs_or_ids) if job_id is not None]

        def destroy(transaction: Transaction) -> None:
            for job_id in ids:
                transaction.drop(job_id)

        return destroy

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict) -> Operation:
        _check_way("on_conflict", on_conflict, OnConflict)
        encoded = [self._encoded(job) for job in jobs]
        for job in encoded:
            check_id(job.id)
            if job.claim > MAX_CHOSEN_ID:
                raise InvalidJobError(f"a claim that is restored is at most {MAX_CHOSEN_ID}")
        return partial(moves.restore, jobs=encoded, on_conflict=on_conflict)

    def complete(self, job: Job, result: Any) -> Operation:
        job = held(job)
        return partial(moves.complete, job=job, result=self._codec.encode(result, "result"))

    def complete_many(self, jobs: Iterable[Job], results: Iterable[Any] | None) -> Operation:
        if results is None:
            return _all_of([self.complete(job, None) for job in jobs])
        return _all_of(
            [self.complete(job, result) for job, result in zip(jobs, results, strict=True)]
        )

    def fail(self, job: Job, error: str | BaseException, retry_at: datetime | None) -> Operation:
        job = held(job)
        if isinstance(error, BaseException):
            error = "".join(traceback.format_exception(error))
        run_at = None if retry_at is None else time_of(microseconds(retry_at))
        return partial(moves.fail, job=job, error=error_text(error), retry_at=run_at)

    def release(self, job: Job) -> Operation:
        job = held(job)
        return partial(moves.release, job=job)

    def progress(self, job: Job, done: int, total: int | None, note: str | None) -> Operation:
        job = held(job)
        return partial(moves.progress, job=job, progress=progress_of(done, total, note))

    def cancel(self, job_or_id: Job | int) -> Operation:
        job_id = check_id(id_of(job_or_id))
        return lambda transaction: moves.cancel(transaction, moves.found(transaction, job_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> Operation:
        ids = [check_id(id_of(job_or_id)) for job_or_id in jobs_or_ids]
        return lambda transaction: [
            moves.cancel(transaction, job)
            for job in moves.those_found(transaction, ids)
            if job.status not in ENDED
        ]

    def retry(self, job_or_id: Job | int) -> Operation:
        job_id = check_id(id_of(job_or_id))
        return lambda transaction: moves.retry(transaction, moves.found(transaction, job_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> Operation:
        ids = [check_id(id_of(job_or_id)) for job_or_id in jobs_or_ids]

        def retry(transaction: Transaction) -> list[Job]:
            retried = []
            for job in moves.those_found(transaction, ids):
                try:
                    retried.append(moves.retry(transaction, job))
                except (InvalidTransitionError, DuplicateJobError):
                    continue
            return retried

        return retry

    def pause(self, worker: Worker) -> Operation:
        name = worker_name(worker)

        def pause(transaction: Transaction) -> None:
            transaction.paused |= {name}

        return pause

    def resume(self, worker: Worker) -> Operation:
        name = worker_name(worker)

        def resume(transaction: Transaction) -> None:
            transaction.paused -= {name}

        return resume

    def _inserts(self, jobs: Iterable[Job], on_duplicate: OnDuplicate) -> list[Operation]:
        _check_way("on_duplicate", on_duplicate, OnDuplicate)
        encoded = [self._encoded(job) for job in jobs]
        for job in encoded:
            moves.check_chosen(job)
        return [partial(moves.insert, job=job, on_duplicate=on_duplicate) for job in encoded]

    def _encoded(self, job: Job) -> Job:
        _check_job(job)
        return job.replace(
            arguments=self._codec.encode(job.arguments),
            result=self._codec.encode(job.result, "result"),
        )


def held(job: object) -> Job:
    """`job` where it was claimed. Raises `InvalidJobError`, `InvalidTransitionError`."""
    job = _check_job(job)
    check_id(job.id)
    if job.claim == 0:
        raise InvalidTransitionError(
            f"job {job.id} was never claimed, so there is nothing to end", job_id=job.id
        )
    return job


def _all_of(operations: Iterable[Operation]) -> Operation:
    operations = list(operations)
    return lambda transaction: [operation(transaction) for operation in operations]


def _check_job(job: object) -> Job:
    if not isinstance(job, Job):
        raise InvalidJobError(f"a job is a Job, not {type(job).__name__}", found=job)
    return job


def _check_way(name: str, way: object, ways: Any) -> None:
    if way not in get_args(ways):
        raise ValueError(f"{name} is one of {get_args(ways)}, not {way!r}")
