"""What becomes of the jobs of a MemoryStore, inside of its transactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import nsmallest
from typing import Any, Final

from quelmdb.codec import Codec
from quelmdb.errors import (
    InvalidTransitionError,
    JobExistsError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.events import Kind
from quelmdb.job import Job
from quelmdb.options import DIED, Failure, Progress
from quelmdb.status import ENDED, Status
from quelmdb.tables import (
    NO_HOLD,
    Hold,
    Selection,
    Transaction,
    decoded,
    held_by_others,
    id_in,
    is_due,
    may_claim,
)
from quelmdb.values import MAX_ATTEMPT, MAX_CHOSEN_ID, check_id, microseconds
from quelmdb.writes import OnConflict, OnDuplicate

_NOTHING: Final = Codec().encode(None)
_RETRIED: Final = (Status.SCHEDULED, Status.FAILED, Status.CANCELLED)


# --- Insert, update, restore -------------------------------------------------


def insert(transaction: Transaction, job: Job, on_duplicate: OnDuplicate) -> Job:
    if job.id is not None and transaction.get(job.id) is not None:
        raise JobExistsError(
            f"a job with the id {job.id} is stored already; update replaces it", job_id=job.id
        )
    now = transaction.now
    job = _timely(transaction, job)
    job = job.replace(created_at=now, updated_at=now, attempt=0, claim=0, owner=0)
    if on_duplicate == "raise":
        transaction.refuse_rival(job)
        return transaction.put(job)
    rival = transaction.rival(job)
    if rival is None:
        return transaction.put(job)
    if on_duplicate == "skip":
        return decoded(rival)
    if rival.status is not Status.STARTED:
        return transaction.put(job.replace(id=rival.id))
    hold = transaction.hold(id_in(rival))
    transaction.put(rival.replace(unique_key=None, updated_at=now), hold)
    return transaction.put(job)


def update(transaction: Transaction, job: Job) -> Job:
    stored = None if job.id is None else transaction.get(job.id)
    job = _timely(transaction, job)
    hold = NO_HOLD
    if stored is None:
        check_chosen(job)
        attempt, claim, owner, created_at = 0, 0, 0, transaction.now
    else:
        attempt, claim, owner, created_at = (
            stored.attempt,
            stored.claim,
            stored.owner,
            stored.created_at or transaction.now,
        )
        if job.status is not Status.STARTED:
            owner = 0
        elif stored.status is not Status.STARTED:
            claim = 0  # started without one: no holder of an old claim may end it
        else:
            hold = transaction.hold(id_in(stored))
    transaction.refuse_rival(job)
    return transaction.put(
        job.replace(
            created_at=job.created_at or created_at,
            updated_at=transaction.now,
            attempt=attempt,
            claim=claim,
            owner=owner,
        ),
        hold,
    )


def restore(transaction: Transaction, jobs: list[Job], on_conflict: OnConflict) -> list[Job]:
    stored = []
    for job in jobs:
        taken = transaction.get(id_in(job)) is not None
        if taken and on_conflict == "error":
            raise JobExistsError(
                f"a job with the id {job.id} is stored already; skip it or replace it",
                job_id=job.id,
            )
        if not taken or on_conflict == "replace":
            transaction.refuse_rival(job)
            transaction.advance(job.claim)
            stored.append(
                transaction.put(
                    job.replace(
                        created_at=job.created_at or transaction.now,
                        updated_at=job.updated_at or transaction.now,
                        claim=0 if job.status is Status.STARTED else job.claim,
                        owner=0,
                    )
                )
            )
    return stored


def _timely(transaction: Transaction, job: Job) -> Job:
    """What is queued and not due yet is scheduled."""
    if job.status is Status.QUEUED and job.run_at is not None and job.run_at > transaction.now:
        return job.replace(status=Status.SCHEDULED)
    return job


# --- Claim and rescue --------------------------------------------------------


def claim(transaction: Transaction, names: frozenset[str | None], limit: int) -> list[Job]:
    """Takes up to `limit` jobs of these workers (of all, where there is no name)."""
    if not limit:
        return []
    now = transaction.now
    for job in list(transaction.jobs()):
        if is_due(job, now):
            transaction.put(job.replace(status=Status.QUEUED, updated_at=now))
    claimable = (
        job for job in transaction.jobs() if may_claim(job, names, transaction.paused, now)
    )
    return [
        _start(transaction, job)
        for job in nsmallest(limit, claimable, key=lambda job: (-job.priority, id_in(job)))
    ]


def _start(transaction: Transaction, job: Job) -> Job:
    started = job.replace(
        status=Status.STARTED,
        attempt=min(job.attempt + 1, MAX_ATTEMPT),
        claim=transaction.new_claim(),
        owner=transaction.owner,
        updated_at=transaction.now,
    )
    return transaction.put(transaction.tell("claimed", job, started), Hold(transaction.now))


def rescue(transaction: Transaction) -> list[Job]:
    """Takes back what others hold, who are dead: one at a time uses a table."""
    lost = list(held_by_others(transaction.table, transaction.owner))
    return [_rescue(transaction, job) for job in lost]


def _rescue(transaction: Transaction, job: Job) -> Job:
    changes: dict[str, Any] = {"status": Status.QUEUED}
    if transaction.hold(id_in(job)).is_cancelled:
        changes = {"status": Status.CANCELLED}
    elif job.max_attempts is not None and job.attempt >= job.max_attempts:
        error = f"{DIED}: attempt {job.attempt} of {job.max_attempts} was the last"
        changes = {"status": Status.FAILED, "result": _NOTHING, "error": error}
    failures = _failures(transaction, job, DIED, died=True)
    return _leave(transaction, "rescued", job, failures=failures, **changes)


# --- Endings -----------------------------------------------------------------


def complete(transaction: Transaction, job: Job, result: bytes) -> Job:
    stored = _held(transaction, job)
    return _leave(
        transaction, "completed", stored, status=Status.COMPLETED, result=result, error=None
    )


def fail(transaction: Transaction, job: Job, error: str, retry_at: datetime | None) -> Job:
    stored = _held(transaction, job)
    is_last = stored.max_attempts is not None and stored.attempt >= stored.max_attempts
    kind: Kind = "failed"
    changes: dict[str, Any] = {"status": Status.FAILED}
    if retry_at is not None and transaction.hold(id_in(stored)).is_cancelled:
        kind, changes = "cancelled", {"status": Status.CANCELLED}
    elif retry_at is not None and not is_last:
        kind, changes = "retried", {"status": Status.SCHEDULED, "run_at": retry_at}
    failures = _failures(transaction, stored, error)
    return _leave(
        transaction, kind, stored, result=_NOTHING, error=error, failures=failures, **changes
    )


def release(transaction: Transaction, job: Job) -> Job:
    stored = _held(transaction, job)
    attempt = max(0, stored.attempt - 1)
    if transaction.hold(id_in(stored)).is_cancelled:
        return _leave(transaction, "cancelled", stored, status=Status.CANCELLED, attempt=attempt)
    return _leave(transaction, "released", stored, status=Status.QUEUED, attempt=attempt)


def _leave(transaction: Transaction, kind: Kind, stored: Job, **changes: Any) -> Job:
    """A job leaves its state, and whoever held it."""
    after = stored.replace(owner=0, updated_at=transaction.now, **changes)
    return transaction.put(transaction.tell(kind, stored, after))


def _failures(
    transaction: Transaction, stored: Job, error: str, died: bool = False
) -> list[Failure]:
    now = transaction.now
    since = transaction.hold(id_in(stored)).since or now
    return [*stored.failures, Failure(stored.attempt, since, now, error, died)]


# --- While it is started, and from outside -----------------------------------


def progress(transaction: Transaction, job: Job, progress: Progress) -> Job:
    stored = _held(transaction, job)
    return transaction.put(
        stored.replace(progress=progress, updated_at=transaction.now),
        transaction.hold(id_in(stored)),
    )


def cancel(transaction: Transaction, stored: Job) -> Job:
    if stored.status in ENDED:
        raise InvalidTransitionError(
            f"job {stored.id} is {stored.status}: it has ended, and cannot be cancelled",
            job_id=stored.id,
            found=stored.status,
        )
    if stored.status is Status.STARTED and stored.claim:
        hold = transaction.hold(id_in(stored))._replace(is_cancelled=True)
        return transaction.put(stored.replace(updated_at=transaction.now), hold)
    return _leave(transaction, "cancelled", stored, status=Status.CANCELLED)


def retry(transaction: Transaction, stored: Job) -> Job:
    if stored.status not in _RETRIED:
        raise InvalidTransitionError(
            f"job {stored.id} is {stored.status}: what is failed, cancelled or scheduled can be "
            "retried",
            job_id=stored.id,
            found=stored.status,
        )
    transaction.refuse_rival(stored.replace(status=Status.QUEUED))
    return _leave(transaction, "retried", stored, status=Status.QUEUED, run_at=None)


def prune(transaction: Transaction, chosen: Selection, age: int | None, keep: int) -> int:
    """Deletes the chosen jobs that were last written so many microseconds ago, but for the
    latest."""
    now = microseconds(transaction.now)
    jobs = [job for job in transaction.jobs() if job in chosen]
    old = [
        job
        for job in jobs[: max(0, len(jobs) - keep)]
        if age is None or now - microseconds(job.updated_at or transaction.now) >= age
    ]
    for job in old:
        transaction.drop(id_in(job))
    return len(old)


# --- Checks ------------------------------------------------------------------


def _held(transaction: Transaction, job: Job) -> Job:
    stored = found(transaction, id_in(job))
    if stored.status is not Status.STARTED or stored.claim != job.claim:
        raise StaleClaim(
            f"job {job.id} is {stored.status} under claim {stored.claim}, no longer started "
            f"under claim {job.claim}",
            job_id=job.id,
            expected=job.claim,
            found=stored.claim,
        )
    return stored


def found(transaction: Transaction, job_id: int) -> Job:
    stored = transaction.get(job_id)
    if stored is None:
        raise JobNotFoundError(f"no job with the id {job_id} is stored", job_id=job_id)
    return stored


def those_found(transaction: Transaction, ids: Iterable[int]) -> Iterator[Job]:
    return (job for job in map(transaction.get, ids) if job is not None)


def check_chosen(job: Job) -> None:
    if job.id is not None:
        check_id(job.id, MAX_CHOSEN_ID)
