"""Every write of a store, prepared: its input is checked and encoded outside of the
transaction, since that may run code of the caller, and what is left is given a `Writer`
inside of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from traceback import format_exception
from typing import Any, Final

from quelmdb import by_option, endings, inserts
from quelmdb.append import Append, AppendOne
from quelmdb.codec import Codec
from quelmdb.endings import held
from quelmdb.errors import InvalidJobError, JobError
from quelmdb.extras import outcome_of
from quelmdb.job import Job, id_of
from quelmdb.options import PLAIN, progress_of
from quelmdb.records import Content, encode_content, encode_outcome
from quelmdb.requests import Verb
from quelmdb.values import MAX_CHOSEN_ID, Worker, error_text, microseconds, worker_name
from quelmdb.writer import Draft, Writer
from quelmdb.writes import OnConflict, OnDuplicate

_NO_OUTCOME: Final[Content] = (0, b"", b"", ())  # neither result nor error


class Verbs:
    """Every write of a store, prepared."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def insert(self, job: Job, on_duplicate: OnDuplicate = "raise") -> Verb[Job]:
        draft = self._draft(job)
        _check_on_duplicate(on_duplicate)
        if _is_appended(draft):
            return AppendOne((draft,))
        return lambda writer: inserts.insert_all(writer, (draft,), on_duplicate)[0]

    def insert_many(
        self, jobs: Iterable[Job], on_duplicate: OnDuplicate = "raise"
    ) -> Verb[list[Job]]:
        drafts = self._drafts(jobs)
        _check_on_duplicate(on_duplicate)
        appended = [_is_appended(draft) for draft in drafts]  # each is looked at
        if all(appended):
            return Append(drafts)
        return lambda writer: inserts.insert_all(writer, drafts, on_duplicate)

    def update(self, job: Job) -> Verb[Job]:
        draft = self._draft(job)
        return lambda writer: inserts.update(writer, draft)

    def update_many(self, jobs: Iterable[Job]) -> Verb[list[Job]]:
        drafts = self._drafts(jobs)
        return lambda writer: [inserts.update(writer, draft) for draft in drafts]

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> Verb[None]:
        ids = [id_of(job_or_id) for job_or_id in jobs_or_ids]

        def apply(writer: Writer) -> None:
            for job_id in ids:
                stored = None if job_id is None else writer.find(job_id)
                if stored is not None:
                    writer.remove(stored)

        return apply

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict) -> Verb[list[Job]]:
        if on_conflict not in ("error", "skip", "replace"):
            raise ValueError(f"on_conflict is error, skip or replace, not {on_conflict!r}")
        drafts = self._drafts(jobs)
        for job, _ in drafts:
            if job.id is None:
                raise InvalidJobError("a job that is restored has an id; `insert` gives new ones")
            if job.claim > MAX_CHOSEN_ID:
                raise InvalidJobError(f"a claim that is restored is at most {MAX_CHOSEN_ID}")

        def apply(writer: Writer) -> list[Job]:
            writer.ensure_room([content for _, content in drafts])
            restored = (inserts.restore(writer, draft, on_conflict) for draft in drafts)
            return [job for job in restored if job is not None]

        return apply

    def complete(self, job: Job, result: Any = None) -> Verb[Job]:
        return endings.complete(*held("complete", job), self._result(result))

    def complete_many(
        self, jobs: Iterable[Job], results: Iterable[Any] | None = None
    ) -> Verb[list[Job]]:
        if results is None:
            claims = [held("complete", job) for job in jobs]
            outcomes = [_NO_OUTCOME] * len(claims)
        else:
            claims, outcomes = [], []
            for job, result in zip(jobs, results, strict=True):  # raises where one has more
                claims.append(held("complete", job))
                outcomes.append(self._result(result))
        if len(dict(claims)) < len(claims):  # a job that is there twice is stale the second time
            pairs = zip(claims, outcomes, strict=True)
            return all_of([endings.complete(*claim, outcome) for claim, outcome in pairs])
        return endings.complete_all(claims, outcomes)

    def fail(
        self, job: Job, error: str | BaseException, retry_at: datetime | None = None
    ) -> Verb[Job]:
        job_id, claim = held("fail", job)
        told = "".join(format_exception(error)) if isinstance(error, BaseException) else error
        text = error_text(told)
        due = None if retry_at is None else microseconds(retry_at)
        return endings.fail(job_id, claim, text, outcome_of(self._codec, None, text), due)

    def release(self, job: Job) -> Verb[Job]:
        return endings.release(*held("release", job))

    def progress(
        self, job: Job, done: int, total: int | None = None, note: str | None = None
    ) -> Verb[Job]:
        return endings.progress(*held("progress", job), progress_of(done, total, note))

    def cancel(self, job_or_id: Job | int) -> Verb[Job]:
        return endings.cancel(_needed_id(job_or_id))

    def cancel_many(self, jobs_or_ids: Iterable[Job | int]) -> Verb[list[Job]]:
        return endings.cancel_all([_needed_id(job_or_id) for job_or_id in jobs_or_ids])

    def retry(self, job_or_id: Job | int) -> Verb[Job]:
        return endings.retry(_needed_id(job_or_id))

    def retry_many(self, jobs_or_ids: Iterable[Job | int]) -> Verb[list[Job]]:
        return endings.retry_all([_needed_id(job_or_id) for job_or_id in jobs_or_ids])

    def requeue(self, jobs: Iterable[Job]) -> Verb[list[Job]]:
        seen = []
        for job in jobs:
            if not isinstance(job, Job):
                raise InvalidJobError(f"a Job is needed, not {type(job).__name__}", found=job)
            seen.append((_needed_id(job), job._claim, job._updated_at))
        return endings.requeue_all(seen)

    def pause(self, worker: Worker) -> Verb[None]:
        name = worker_name(worker)

        def apply(writer: Writer) -> None:
            number = writer.number_of(name)
            writer.touched = True
            by_option.pause(writer.transaction, writer.databases, number)

        return apply

    def resume(self, worker: Worker) -> Verb[None]:
        name = worker_name(worker)

        def apply(writer: Writer) -> None:
            number = writer.number_of(name)
            writer.touched = True
            if by_option.resume(writer.transaction, writer.databases, number):
                writer.awakens = True

        return apply

    def give_back(self, jobs: Iterable[Job]) -> Verb[None]:
        """Releases those that are still held: they could not be handed over."""
        verbs = [self.release(job) for job in jobs]

        def apply(writer: Writer) -> None:
            for verb in verbs:
                with suppress(JobError):  # which change nothing
                    verb(writer)

        return apply

    def _result(self, result: Any) -> Content:
        return _NO_OUTCOME if result is None else encode_outcome(self._codec, result, None)

    def _drafts(self, jobs: Iterable[Job]) -> list[Draft]:
        return [self._draft(job) for job in jobs]

    def _draft(self, job: Job) -> Draft:
        if type(job) is not Job and not isinstance(job, Job):
            raise InvalidJobError(f"a Job is needed, not {type(job).__name__}", found=job)
        return job, encode_content(self._codec, job)


def all_of(verbs: Sequence[Verb[Any]]) -> Verb[list[Any]]:
    """Several, one after the other, in one transaction."""
    return lambda writer: [verb(writer) for verb in verbs]


def _is_appended(draft: Draft) -> bool:
    """Whether it is put behind all others, and needs no look at what is there. Raises
    `InvalidJobError` for an id that may not be chosen."""
    job, _ = draft
    if job._id is not None:
        inserts.check_chosen(job._id)
        return False
    return job._options is PLAIN or by_option.has_none(job._options)


def _check_on_duplicate(on_duplicate: OnDuplicate) -> None:
    if on_duplicate not in ("raise", "skip", "replace"):
        raise ValueError(f"on_duplicate is raise, skip or replace, not {on_duplicate!r}")


def _needed_id(job_or_id: Job | int) -> int:
    job_id = id_of(job_or_id)
    if job_id is None:
        raise InvalidJobError("a job that is stored is needed, or its id; this one has none")
    return job_id
