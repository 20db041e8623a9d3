"""What becomes of claimed jobs, and of those that are cancelled or retried, inside of the
transaction. docs/state-machine.md has the transitions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Final

from quelmdb import bulk
from quelmdb.errors import (
    DecodeError,
    DuplicateJobError,
    InvalidJobError,
    InvalidTransitionError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.events import Kind
from quelmdb.extras import Extras, claimed
from quelmdb.job import Job
from quelmdb.moves import Change, Move, move, move_rest, prepare, prepare_rare
from quelmdb.options import MAX_FAILURE, Failure, Progress
from quelmdb.recordlayout import CANCEL_REQUESTED
from quelmdb.records import Content
from quelmdb.requests import Verb
from quelmdb.status import ENDED, Status
from quelmdb.stored import Stored, verified
from quelmdb.values import shortened, time_of
from quelmdb.writer import Writer

_PRUNE_SECONDS: Final = 0.01  # of a transaction, beside its commit


def held(name: str, job: object) -> tuple[int, int]:
    """Id and claim of a job that is to be ended by the verb `name`."""
    if not isinstance(job, Job):
        raise InvalidJobError(f"a Job is needed, not {type(job).__name__}", found=job)
    job_id, claim = job._id, job._claim
    if job_id is None:
        raise InvalidJobError(f"{name} needs a job that is stored; this one has no id")
    if claim == 0:
        raise InvalidTransitionError(
            f"job {job_id} was never claimed: {name} has no claim to check; use `update`",
            job_id=job_id,
        )
    return job_id, claim


def complete(job_id: int, claim: int, outcome: Content) -> Verb[Job]:
    """As `JobStore.complete`."""

    def apply(writer: Writer) -> Job:
        return move(writer, _completed(writer, job_id, claim, writer.find(job_id), outcome))

    return apply


def complete_all(claims: Sequence[tuple[int, int]], outcomes: Sequence[Content]) -> Verb[list[Job]]:
    """The same of several jobs, none of them twice."""

    def apply(writer: Writer) -> list[Job]:
        found = writer.records([job_id for job_id, _ in claims])
        done = bulk.complete_all(writer, found, [claim for _, claim in claims], outcomes)
        others = {}
        if len(done) < len(found):
            for place, ((job_id, key, record), (_, claim)) in enumerate(
                zip(found, claims, strict=True)
            ):
                if place not in done:
                    stored = None if record is None else verified(job_id, key, record)
                    others[place] = _completed(writer, job_id, claim, stored, outcomes[place])
        return move_rest(writer, done, others)

    return apply


def fail(job_id: int, claim: int, error: str, outcome: Extras, retry_at: int | None) -> Verb[Job]:
    """As `JobStore.fail`; `outcome` is the error, encoded."""

    def apply(writer: Writer) -> Job:
        stored = _still_held(writer.find(job_id), job_id, claim)
        options = stored.options
        most = options.max_attempts
        status = Status.FAILED
        kind: Kind = "failed"
        if retry_at is not None and stored.flags & CANCEL_REQUESTED:
            status, kind = Status.CANCELLED, "cancelled"
        elif retry_at is not None and (most is None or stored.attempt < most):
            status, kind = Status.SCHEDULED, "retried"
            options = options._replace(run_at=retry_at)
        failure = failure_of(stored, writer.now, error)
        change = Change(outcome, options, failure)
        moved = move(writer, prepare_rare(writer, stored, status, stored.attempt, 0, claim, change))
        writer.tell(kind, moved, stored)
        return moved

    return apply


def failure_of(stored: Stored, now: int, error: str, *, died: bool = False) -> Failure:
    """The attempt of a started job that ends now."""
    text = shortened(error, MAX_FAILURE)
    ended_at = time_of(now)
    try:
        started_at = time_of(stored.since)
    except DecodeError:  # a time that is none keeps nobody from ending the job
        started_at = ended_at
    return Failure(stored.attempt, started_at, ended_at, text, died)


def release(job_id: int, claim: int) -> Verb[Job]:
    """As `JobStore.release`."""

    def apply(writer: Writer) -> Job:
        stored = _still_held(writer.find(job_id), job_id, claim)
        return _release(writer, stored, max(stored.attempt - 1, 0))

    return apply


def requeue_all(seen: Sequence[tuple[int, int, int | None]]) -> Verb[list[Job]]:
    """As `Store.requeue`, of jobs that are told by id, claim and updated_at."""

    def apply(writer: Writer) -> list[Job]:
        requeued = []
        for job_id, claim, updated_at in seen:
            stored = writer.find(job_id)
            if stored is None or stored.status is not Status.STARTED or stored.claim != claim:
                continue
            if claim:
                requeued.append(_release(writer, stored, max(stored.attempt - 1, 0)))
            elif stored.updated_at == updated_at:  # else it may have been started once more
                requeued.append(_release(writer, stored, stored.attempt))
        return requeued

    return apply


def progress(job_id: int, claim: int, progress: Progress) -> Verb[Job]:
    """As `JobStore.progress`."""

    def apply(writer: Writer) -> Job:
        stored = _still_held(writer.find(job_id), job_id, claim)
        change = Change(options=stored.options._replace(progress=progress))
        return move(writer, still_started(writer, stored, change, stored.flags))

    return apply


def still_started(writer: Writer, stored: Stored, change: Change, flags: int) -> Move:
    """A change of a job that stays with whoever holds it."""
    change = change._replace(others=claimed(stored.claim, stored.since))
    return prepare_rare(
        writer,
        stored,
        Status.STARTED,
        stored.attempt,
        stored.owner,
        stored.claim,
        change,
        flags & CANCEL_REQUESTED,
    )


def cancel(job_id: int) -> Verb[Job]:
    """As `JobStore.cancel`."""
    return lambda writer: _cancel(writer, _found(writer, job_id))


def cancel_all(ids: Iterable[int]) -> Verb[list[Job]]:
    """The same of those that are stored and have not ended."""

    def apply(writer: Writer) -> list[Job]:
        found = (writer.find(job_id) for job_id in ids)
        return [
            _cancel(writer, stored)
            for stored in found
            if stored is not None and stored.status not in ENDED
        ]

    return apply


def retry(job_id: int) -> Verb[Job]:
    """As `JobStore.retry`."""
    return lambda writer: _retry(writer, _found(writer, job_id))


def retry_all(ids: Iterable[int]) -> Verb[list[Job]]:
    """The same of those of which it would not raise."""

    def apply(writer: Writer) -> list[Job]:
        retried = []
        for job_id in ids:
            stored = writer.find(job_id)
            if stored is not None:
                try:
                    retried.append(_retry(writer, stored))
                except (InvalidTransitionError, DuplicateJobError):  # nothing is changed then
                    continue
        return retried

    return apply


def prune(ids: Sequence[int], statuses: frozenset[Status], before: int) -> Verb[tuple[int, int]]:
    """Deletes those of these jobs that still have one of the statuses and were last written
    before that time, until it has taken long enough. Returns how many of the ids it came
    to, one at least, and how many jobs it deleted."""

    def apply(writer: Writer) -> tuple[int, int]:
        end = perf_counter() + _PRUNE_SECONDS
        deleted = 0
        for number, job_id in enumerate(ids, 1):
            stored = writer.find(job_id)
            if stored and stored.status in statuses and stored.updated_at <= before:
                writer.remove(stored)
                deleted += 1
            if perf_counter() > end:
                return number, deleted
        return len(ids), deleted

    return apply


def _completed(
    writer: Writer, job_id: int, claim: int, stored: Stored | None, outcome: Content
) -> Move:
    stored = _still_held(stored, job_id, claim)
    if outcome[3]:
        writer.ensure_room((outcome,))  # what is small may use the reserve
    prepared = prepare(writer, stored, Status.COMPLETED, stored.attempt, 0, claim, outcome)
    if writer.events is not None:
        writer.tell("completed", prepared.job, stored)
    return prepared


def _still_held(stored: Stored | None, job_id: int, claim: int) -> Stored:
    """Raises where the job is not started under that claim."""
    if stored is None:
        raise _not_found(job_id)
    if stored.status is not Status.STARTED or stored.claim != claim:
        raise StaleClaim(
            f"job {job_id} is {stored.status} under claim {stored.claim}, no longer started "
            f"under claim {claim}: it was finished, released, rescued or claimed again",
            job_id=job_id,
            expected=claim,
            found=stored.claim,
        )
    return stored


def _release(writer: Writer, stored: Stored, attempt: int) -> Job:
    status = Status.QUEUED
    kind: Kind = "released"
    if stored.flags & CANCEL_REQUESTED:
        status, kind = Status.CANCELLED, "cancelled"
    moved = move(writer, prepare(writer, stored, status, attempt, 0, stored.claim))
    writer.tell(kind, moved, stored)
    return moved


def _cancel(writer: Writer, stored: Stored) -> Job:
    if stored.status in ENDED:
        raise InvalidTransitionError(
            f"job {stored.id} is {stored.status}: it has ended, and cannot be cancelled",
            job_id=stored.id,
            found=stored.status,
        )
    if stored.status is Status.STARTED and stored.claim:
        return move(writer, still_started(writer, stored, Change(), CANCEL_REQUESTED))
    status, attempt, claim = Status.CANCELLED, stored.attempt, stored.claim
    moved = move(writer, prepare(writer, stored, status, attempt, 0, claim))
    writer.tell("cancelled", moved, stored)
    return moved


def _retry(writer: Writer, stored: Stored) -> Job:
    if stored.status not in (Status.SCHEDULED, Status.FAILED, Status.CANCELLED):
        raise InvalidTransitionError(
            f"job {stored.id} is {stored.status}: what is failed, cancelled or scheduled can be "
            "retried",
            job_id=stored.id,
            found=stored.status,
        )
    options = stored.options._replace(run_at=None)
    writer.refuse_duplicate(options, Status.QUEUED, stored.id)
    change = Change(options=options)
    attempt, claim = stored.attempt, stored.claim
    moved = move(writer, prepare_rare(writer, stored, Status.QUEUED, attempt, 0, claim, change))
    writer.tell("retried", moved, stored)
    return moved


def _found(writer: Writer, job_id: int) -> Stored:
    stored = writer.find(job_id)
    if stored is None:
        raise _not_found(job_id)
    return stored


def _not_found(job_id: int) -> JobNotFoundError:
    return JobNotFoundError(f"job {job_id} is not stored (any more)", job_id=job_id)
