"""New jobs and replaced ones, inside of the transaction: insert, update, restore."""

from __future__ import annotations

from collections.abc import Sequence

from quelmdb.endings import still_started
from quelmdb.errors import InvalidJobError, JobExistsError
from quelmdb.extras import claimed, packed
from quelmdb.job import Job
from quelmdb.layout import NEXT_CLAIM, NEXT_ID
from quelmdb.moves import Change, move, outcome_in
from quelmdb.recordlayout import ARGUMENTS, ARGUMENTS_OUTSIDE, CANCEL_REQUESTED
from quelmdb.records import corrupt_record
from quelmdb.status import Status
from quelmdb.stored import Stored
from quelmdb.values import MAX_CHOSEN_ID, MAX_ID
from quelmdb.writer import Draft, Writer
from quelmdb.writes import OnConflict, OnDuplicate


def check_chosen(job_id: int) -> None:
    """Raises `InvalidJobError` where a caller may not choose that id."""
    if job_id > MAX_CHOSEN_ID:
        raise InvalidJobError(
            f"an id that a caller chooses is at most {MAX_CHOSEN_ID}, not {job_id}",
            job_id=job_id,
            expected=MAX_CHOSEN_ID,
            found=job_id,
        )


def insert_all(writer: Writer, drafts: Sequence[Draft], on_duplicate: OnDuplicate) -> list[Job]:
    """As `JobStore.insert_many`."""
    writer.ensure_room([content for _, content in drafts])
    return [_insert(writer, draft, on_duplicate) for draft in drafts]


def update(writer: Writer, draft: Draft) -> Job:
    """As `JobStore.update`."""
    draft = _timely(writer, draft)
    job, (_, arguments, extras, outside) = draft
    job_id = job.id
    stored = None if job_id is None else writer.find(job_id)
    writer.refuse_duplicate(job._options, job._status, job_id)
    if stored is not None:
        if outside or len(arguments) + len(extras) > len(stored.record):
            writer.ensure_room((draft[1],))
        return _replace(writer, stored, draft)
    writer.ensure_room((draft[1],))
    if job_id is None:
        job_id = writer.counters.next(NEXT_ID, MAX_ID)
    else:
        check_chosen(job_id)
        writer.counters.advance(NEXT_ID, job_id)
    created = job._created_at
    return writer.put(
        job_id, draft, writer.now if created is None else created, writer.now, attempt=0, claim=0
    )


def restore(writer: Writer, draft: Draft, on_conflict: OnConflict) -> Job | None:
    """As `JobStore.restore`, one of them; None where it was skipped."""
    job, _ = draft
    assert job.id is not None
    stored = writer.find(job.id)
    if stored is not None:
        if on_conflict == "skip":
            return None
        if on_conflict == "error":
            raise _exists(job.id, "skip or replace it (on_conflict)")
        writer.remove(stored)
    writer.refuse_duplicate(job._options, job._status, job.id)
    writer.counters.advance(NEXT_ID, job.id)
    writer.counters.advance(NEXT_CLAIM, job.claim)
    created, updated = job._created_at, job._updated_at
    return writer.put(
        job.id,
        draft,
        writer.now if created is None else created,
        writer.now if updated is None else updated,
        job.attempt,
        0 if job.status is Status.STARTED else job.claim,  # as in `_replace`
    )


def _insert(writer: Writer, draft: Draft, on_duplicate: OnDuplicate) -> Job:
    draft = _timely(writer, draft)
    job, _ = draft
    job_id = job.id
    if job_id is not None and writer.find(job_id) is not None:
        raise _exists(job_id, "`update` replaces it")
    if on_duplicate == "raise":
        writer.refuse_duplicate(job._options, job._status, None)
    else:
        holder = writer.holder(job._options, job._status)
        if holder is not None:
            stored = writer.find(holder)
            if stored is None:
                raise corrupt_record(holder, "its unique key is in the index, and it is not stored")
            if on_duplicate == "skip":
                return writer.read(stored)
            if stored.status is not Status.STARTED:
                return writer.replace(stored, draft, writer.now, attempt=0, owner=0, claim=0)
            _take_key(writer, stored)
    if job_id is None:
        job_id = writer.counters.next(NEXT_ID, MAX_ID)
    else:
        writer.counters.advance(NEXT_ID, job_id)
    return writer.put(job_id, draft, writer.now, writer.now, attempt=0, claim=0)


def _timely(writer: Writer, draft: Draft) -> Draft:
    """What is queued and not due yet is scheduled."""
    job, content = draft
    run_at = job._options.run_at
    if run_at is None or run_at <= writer.now or job._status is not Status.QUEUED:
        return draft
    return job.replace(status=Status.SCHEDULED), content


def _take_key(writer: Writer, stored: Stored) -> None:
    """A started job goes on without its unique key."""
    change = Change(options=stored.options._replace(unique_key=None))
    move(writer, still_started(writer, stored, change, stored.flags))


def _replace(writer: Writer, stored: Stored, draft: Draft) -> Job:
    job, _ = draft
    owner, claim = stored.owner, stored.claim
    if job.status is not Status.STARTED:
        owner = 0
    elif stored.status is not Status.STARTED:
        owner = claim = 0  # started without a claim: no holder of an old one may finish it
    elif claim:
        draft = _still_claimed(stored, draft)
    created = job._created_at
    return writer.replace(
        stored,
        draft,
        stored.created_at if created is None else created,
        stored.attempt,
        owner,
        claim,
    )


def _still_claimed(stored: Stored, draft: Draft) -> Draft:
    """With what the store itself notes of a claim."""
    job, content = draft
    flags, arguments, _, outside = content
    extras = outcome_in(content) | claimed(stored.claim, stored.since)
    extras_flags, inside, extras_outside = packed(extras)
    kept = tuple(part for part in outside if part[0] == ARGUMENTS)
    flags = flags & ARGUMENTS_OUTSIDE | extras_flags | stored.flags & CANCEL_REQUESTED
    return job, (flags, arguments, inside, kept + extras_outside)


def _exists(job_id: int, advice: str) -> JobExistsError:
    return JobExistsError(f"job {job_id} is stored already; {advice}", job_id=job_id)
