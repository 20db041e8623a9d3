"""The rules of every write: what it checks, and what it does to a job.

A verb is prepared outside of the transaction, where the caller's data is checked
and encoded (which may run code of the caller), and returns an operation that a
`Writer` is given inside of it. docs/state-machine.md has the transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from quelmdb import index
from quelmdb.append import Append, AppendOne
from quelmdb.codec import Codec
from quelmdb.errors import (
    CorruptRecordError,
    InvalidJobError,
    InvalidTransitionError,
    JobError,
    JobExistsError,
    JobNotFoundError,
    StaleClaim,
)
from quelmdb.job import (
    MAX_ATTEMPT,
    MAX_CHOSEN_ID,
    MAX_ID,
    TRANSITIONS,
    Job,
    Status,
    error_text,
    id_of,
)
from quelmdb.layout import NEXT_CLAIM, NEXT_ID
from quelmdb.moves import Move, move, move_all, prepare
from quelmdb.records import Content, corrupt_record, encode_content, encode_outcome
from quelmdb.requests import Verb
from quelmdb.writer import Draft, Stored, Writer, verified
from quelmdb.writes import OnConflict

Report = Callable[[CorruptRecordError], None]
"""Is told of a corrupt job, which is passed over."""

_NO_OUTCOME: Final[Content] = (0, b"", b"", ())  # neither result nor error


class Verbs:
    """Every write of a store, prepared."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def insert(self, job: Job) -> Verb[Job]:
        draft = self._draft(job)
        if job._id is None:
            return AppendOne((draft,))
        _check_chosen(job._id)
        return lambda writer: _insert_all(writer, (draft,))[0]

    def insert_many(self, jobs: Iterable[Job]) -> Verb[list[Job]]:
        drafts = self._drafts(jobs)
        chosen = [job._id for job, _ in drafts if job._id is not None]
        if not chosen:
            return Append(drafts)
        for job_id in chosen:
            _check_chosen(job_id)
        return lambda writer: _insert_all(writer, drafts)

    def update(self, job: Job) -> Verb[Job]:
        draft = self._draft(job)
        return lambda writer: _update(writer, draft)

    def update_many(self, jobs: Iterable[Job]) -> Verb[list[Job]]:
        drafts = self._drafts(jobs)
        return lambda writer: [_update(writer, draft) for draft in drafts]

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
            restored = (_restore(writer, draft, on_conflict) for draft in drafts)
            return [job for job in restored if job is not None]

        return apply

    def complete(self, job: Job, result: Any = None) -> Verb[Job]:
        outcome = _NO_OUTCOME if result is None else encode_outcome(self._codec, result, None)
        return _finish("complete", *_held("complete", job), outcome)

    def complete_many(self, jobs: Iterable[Job]) -> Verb[list[Job]]:
        held = [_held("complete", job) for job in jobs]
        if len(dict(held)) < len(held):  # a job that is there twice is stale the second time
            verbs = [_finish("complete", *claim, _NO_OUTCOME) for claim in held]
            return all_of(verbs)
        return lambda writer: _finish_all(writer, "complete", held, _NO_OUTCOME)

    def fail(self, job: Job, error: str) -> Verb[Job]:
        outcome = encode_outcome(self._codec, None, error_text(error))
        return _finish("fail", *_held("fail", job), outcome)

    def release(self, job: Job) -> Verb[Job]:
        return _finish("release", *_held("release", job), None)

    def give_back(self, jobs: Iterable[Job]) -> Verb[None]:
        """Releases those that are still held: they could not be handed over."""
        verbs = [self.release(job) for job in jobs]

        def apply(writer: Writer) -> None:
            for verb in verbs:
                with suppress(JobError):  # which change nothing
                    verb(writer)

        return apply

    def _drafts(self, jobs: Iterable[Job]) -> list[Draft]:
        return [self._draft(job) for job in jobs]

    def _draft(self, job: Job) -> Draft:
        if type(job) is not Job:
            _check_is_job(job)
        return job, encode_content(self._codec, job)


def all_of(verbs: Sequence[Verb[Any]]) -> Verb[list[Any]]:
    """Several, one after the other, in one transaction."""
    return lambda writer: [verb(writer) for verb in verbs]


class Claim:
    """Takes up to `limit` queued jobs of these workers (of all, where there is no name)."""

    __slots__ = ("_limit", "_names", "_report")

    def __init__(self, names: Sequence[str | None], limit: int, report: Report) -> None:
        self._names = names
        self._limit = limit
        self._report = report

    def __call__(self, writer: Writer) -> list[Job]:
        keys = writer.keys(Status.QUEUED, self._names)
        moves: list[Move] = []
        after: int | None = None
        complete = False
        while len(moves) < self._limit and not complete:
            wanted = self._limit - len(moves)
            ids, complete = index.scan(writer.transaction, keys, after, reverse=False, size=wanted)
            complete = complete and len(ids) <= wanted
            for job_id, key, record in writer.records(ids[:wanted]):
                try:
                    if job_id == after:
                        raise corrupt_record(job_id, "two workers have it in the index")
                    moves.append(_start(writer, job_id, key, record))
                except CorruptRecordError as error:
                    self._report(error)
                after = job_id
        return move_all(writer, moves)


def rescue(ids: Iterable[int], dead: set[int], report: Report) -> Verb[list[Job]]:
    """Requeues those of these jobs that are started by an owner among `dead`."""

    def apply(writer: Writer) -> list[Job]:
        before, after = TRANSITIONS["rescue"]
        still_dead = writer.dead_among(dead)
        moves = []
        for job_id in ids:
            try:
                stored = writer.find(job_id)
                if stored and stored.status is before and stored.owner in still_dead:
                    attempt, claim = stored.attempt, stored.claim
                    moves.append(prepare(writer, stored, after, attempt, 0, claim))
            except CorruptRecordError as error:
                report(error)
        return move_all(writer, moves)

    return apply


def _insert_all(writer: Writer, drafts: Sequence[Draft]) -> list[Job]:
    writer.ensure_room([content for _, content in drafts])
    return [_insert(writer, draft) for draft in drafts]


def _insert(writer: Writer, draft: Draft) -> Job:
    job_id = draft[0].id
    if job_id is None:
        job_id = writer.counters.next(NEXT_ID, MAX_ID)
    else:
        if writer.find(job_id) is not None:
            raise _exists(job_id, "`update` replaces it")
        writer.counters.advance(NEXT_ID, job_id)
    return writer.put(job_id, draft, writer.now, writer.now, attempt=0, claim=0)


def _update(writer: Writer, draft: Draft) -> Job:
    job, (_, arguments, extras, outside) = draft
    job_id = job.id
    stored = None if job_id is None else writer.find(job_id)
    if stored is not None:
        if outside or len(arguments) + len(extras) > len(stored.record):
            writer.ensure_room((draft[1],))
        return _replace(writer, stored, draft)
    writer.ensure_room((draft[1],))
    if job_id is None:
        job_id = writer.counters.next(NEXT_ID, MAX_ID)
    else:
        _check_chosen(job_id)
        writer.counters.advance(NEXT_ID, job_id)
    created = job._created_at
    return writer.put(
        job_id, draft, writer.now if created is None else created, writer.now, attempt=0, claim=0
    )


def _replace(writer: Writer, stored: Stored, draft: Draft) -> Job:
    job, _ = draft
    owner, claim = stored.owner, stored.claim
    if job.status is not Status.STARTED:
        owner = 0
    elif stored.status is not Status.STARTED:
        owner = claim = 0  # started without a claim: no holder of an old one may finish it
    created = job._created_at
    return writer.replace(
        stored, draft, stored.created_at if created is None else created, owner, claim
    )


def _restore(writer: Writer, draft: Draft, on_conflict: OnConflict) -> Job | None:
    job, _ = draft
    assert job.id is not None
    stored = writer.find(job.id)
    if stored is not None:
        if on_conflict == "skip":
            return None
        if on_conflict == "error":
            raise _exists(job.id, "skip or replace it (on_conflict)")
        writer.remove(stored)
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


def _start(writer: Writer, job_id: int, key: bytes, record: bytes | None) -> Move:
    before, after = TRANSITIONS["claim"]
    stored = None if record is None else verified(job_id, key, record)
    if stored is None or stored.status is not before:
        raise corrupt_record(job_id, "it is among the queued jobs of the index, and is none")
    attempt = min(stored.attempt + 1, MAX_ATTEMPT)
    claim = writer.counters.next(NEXT_CLAIM, MAX_ID)
    return prepare(writer, stored, after, attempt, writer.owner(), claim)


def _held(name: str, job: Job) -> tuple[int, int]:
    """Id and claim of a job that is to be ended by the verb `name`."""
    _check_is_job(job)
    job_id, claim = job._id, job._claim
    if job_id is None:
        raise InvalidJobError(f"{name} needs a job that is stored; this one has no id")
    if claim == 0:
        raise InvalidTransitionError(
            f"job {job_id} was never claimed: {name} has no claim to check; use `update`",
            job_id=job_id,
        )
    return job_id, claim


def _finish(name: str, job_id: int, claim: int, outcome: Content | None) -> Verb[Job]:
    """A verb on a job that is still held under that claim."""

    def apply(writer: Writer) -> Job:
        stored = writer.find(job_id)
        return move(writer, _ended(writer, name, job_id, claim, stored, outcome))

    return apply


def _finish_all(
    writer: Writer, name: str, held: Sequence[tuple[int, int]], outcome: Content | None
) -> list[Job]:
    """The same of several jobs, none of them twice."""
    moves = []
    records = writer.records([job_id for job_id, _ in held])
    for (job_id, key, record), (_, claim) in zip(records, held, strict=True):
        stored = None if record is None else verified(job_id, key, record)
        moves.append(_ended(writer, name, job_id, claim, stored, outcome))
    return move_all(writer, moves)


def _ended(
    writer: Writer,
    name: str,
    job_id: int,
    claim: int,
    stored: Stored | None,
    outcome: Content | None,
) -> Move:
    before, after = TRANSITIONS[name]
    if stored is None:
        raise JobNotFoundError(f"job {job_id} is not stored (any more)", job_id=job_id)
    if stored.status is not before or stored.claim != claim:
        raise StaleClaim(
            f"job {job_id} is {stored.status} under claim {stored.claim}, no longer {before} "
            f"under claim {claim}: it was finished, released, rescued or claimed again",
            job_id=job_id,
            expected=claim,
            found=stored.claim,
        )
    if outcome is not None and outcome[3]:
        writer.ensure_room((outcome,))  # what is small may use the reserve
    attempt = max(stored.attempt - 1, 0) if name == "release" else stored.attempt
    return prepare(writer, stored, after, attempt, 0, claim, outcome)


def _check_is_job(job: object) -> None:
    if not isinstance(job, Job):
        raise InvalidJobError(f"a Job is needed, not {type(job).__name__}", found=job)


def _check_chosen(job_id: int) -> None:
    if job_id > MAX_CHOSEN_ID:
        raise InvalidJobError(
            f"an id that a caller chooses is at most {MAX_CHOSEN_ID}, not {job_id}",
            job_id=job_id,
            expected=MAX_CHOSEN_ID,
            found=job_id,
        )


def _exists(job_id: int, advice: str) -> JobExistsError:
    return JobExistsError(f"job {job_id} is stored already; {advice}", job_id=job_id)
