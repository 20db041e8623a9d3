"""Jobs in dictionaries: the table of a MemoryStore, its transactions, its writes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final, get_args

from quelmdb import codec
from quelmdb.codec import Codec
from quelmdb.errors import (
    InvalidJobError,
    InvalidTransitionError,
    JobExistsError,
    JobNotFoundError,
    StaleClaim,
    StoreFullError,
)
from quelmdb.job import (
    MAX_ATTEMPT,
    MAX_CHOSEN_ID,
    MAX_ID,
    TRANSITIONS,
    Job,
    Status,
    check_id,
    error_text,
    id_of,
    time_of,
)
from quelmdb.persistence import Problem
from quelmdb.writes import OnConflict, Operation

OWNER: Final = 1  # of every claim: one process uses a MemoryStore
_NOTHING: Final = Codec().encode(None)


class Table:
    """Jobs by id, and the next numbers. A stored job is a `Job` that has CBOR in the
    place of its arguments and its result, so that nobody can change them."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.ids: list[int] = []  # those of `jobs`, ascending
        self.next_id = 1
        self.next_claim = 1

    def copy(self) -> Table:
        """Another table of the same jobs, for a snapshot. O(n)."""
        copy = Table()
        copy.jobs = self.jobs.copy()
        copy.ids = self.ids.copy()
        copy.next_id, copy.next_claim = self.next_id, self.next_claim
        return copy

    def put(self, job_id: int, job: Job) -> None:
        """Stores `job`, in the place of what was there."""
        if job_id not in self.jobs:
            insort(self.ids, job_id)
        self.jobs[job_id] = job

    def drop(self, job_id: int) -> None:
        """Deletes the job with that id, if there is one."""
        if self.jobs.pop(job_id, None) is not None:
            del self.ids[bisect_left(self.ids, job_id)]

    def scan(self, after: int | None = None, reverse: bool = False) -> Iterator[Job]:
        """The jobs with ids above `after`; below it and backwards where `reverse`."""
        if reverse:
            end = len(self.ids) if after is None else bisect_left(self.ids, after)
            places = range(end - 1, -1, -1)
        else:
            start = 0 if after is None else bisect_right(self.ids, after)
            places = range(start, len(self.ids))
        return (self.jobs[self.ids[place]] for place in places)


class Transaction:
    """Changes beside the table, until `apply` makes all of them."""

    def __init__(self, table: Table, now: int) -> None:
        self.table = table
        self.now = time_of(now)
        self._changes: dict[int, Job | None] = {}
        self._next_id = table.next_id
        self._next_claim = table.next_claim

    def get(self, job_id: int) -> Job | None:
        """The stored job with that id, as this transaction left it."""
        return self._changes[job_id] if job_id in self._changes else self.table.jobs.get(job_id)

    def put(self, job: Job) -> Job:
        """Stores it, under the next id where it has none, and returns what a caller sees."""
        if job.id is None:
            job = job.replace(id=self._new_id())
        job_id = id_in(job)
        self._changes[job_id] = job
        self._next_id = max(self._next_id, job_id + 1)
        self.advance(job.claim)
        return decoded(job)

    def drop(self, job_id: int) -> None:
        """Deletes the job with that id, if there is one."""
        self._changes[job_id] = None

    def advance(self, claim: int) -> None:
        """Claims that are given out later are above this one."""
        self._next_claim = max(self._next_claim, claim + 1)

    def new_claim(self) -> int:
        """The next claim number; `put` counts on from it."""
        if self._next_claim > MAX_ID:
            raise StoreFullError("no claim number is left: a restored job has the largest")
        return self._next_claim

    def apply(self) -> None:
        """Makes the changes. Cannot fail half-way."""
        for job_id, job in self._changes.items():
            if job is None:
                self.table.drop(job_id)
            else:
                self.table.put(job_id, job)
        self.table.next_id = self._next_id
        self.table.next_claim = self._next_claim

    def _new_id(self) -> int:
        if self._next_id > MAX_ID:
            raise StoreFullError("no id is left: a job with the largest was stored")
        return self._next_id


def id_in(job: Job) -> int:
    """The id of a job that is known to have one."""
    assert job.id is not None
    return job.id


def decoded(stored: Job) -> Job:
    """A stored job as callers see it."""
    return stored.replace(
        arguments=codec.decode(stored.arguments), result=codec.decode(stored.result)
    )


# --- Writes ------------------------------------------------------------------


class TableWrites:
    """The writes as operations on a `Transaction` (`quelmdb.persistence.Writes`)."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def insert(self, job: Job) -> Operation:
        encoded = self._encoded(job)
        _check_chosen(encoded)
        return partial(_insert, job=encoded)

    def insert_many(self, jobs: Iterable[Job]) -> Operation:
        encoded = [self._encoded(job) for job in jobs]
        for job in encoded:
            _check_chosen(job)
        return lambda transaction: [_insert(transaction, job) for job in encoded]

    def update(self, job: Job) -> Operation:
        return partial(_update, job=self._encoded(job))

    def update_many(self, jobs: Iterable[Job]) -> Operation:
        encoded = [self._encoded(job) for job in jobs]
        return lambda transaction: [_update(transaction, job) for job in encoded]

    def destroy_many(self, jobs_or_ids: Iterable[Job | int | None]) -> Operation:
        ids = [job_id for job_id in map(id_of, jobs_or_ids) if job_id is not None]

        def destroy(transaction: Transaction) -> None:
            for job_id in ids:
                transaction.drop(job_id)

        return destroy

    def restore(self, jobs: Iterable[Job], on_conflict: OnConflict) -> Operation:
        if on_conflict not in get_args(OnConflict):
            raise ValueError(f"on_conflict is one of {get_args(OnConflict)}, not {on_conflict!r}")
        encoded = [self._encoded(job) for job in jobs]
        for job in encoded:
            check_id(job.id)
            if job.claim > MAX_CHOSEN_ID:
                raise InvalidJobError(f"a claim that is restored is at most {MAX_CHOSEN_ID}")
        return partial(_restore, jobs=encoded, on_conflict=on_conflict)

    def complete(self, job: Job, result: Any) -> Operation:
        _check_claimed(job)
        encoded = self._codec.encode(result, "result")
        return partial(_end, verb="complete", job=job, result=encoded, error=None)

    def complete_many(self, jobs: Iterable[Job]) -> Operation:
        operations = [self.complete(job, None) for job in jobs]
        return lambda transaction: [operation(transaction) for operation in operations]

    def fail(self, job: Job, error: str) -> Operation:
        _check_claimed(job)
        return partial(_end, verb="fail", job=job, result=_NOTHING, error=error_text(error))

    def release(self, job: Job) -> Operation:
        _check_claimed(job)
        return partial(_end, verb="release", job=job)

    def _encoded(self, job: Job) -> Job:
        _check_job(job)
        return job.replace(
            arguments=self._codec.encode(job.arguments),
            result=self._codec.encode(job.result, "result"),
        )


def _insert(transaction: Transaction, job: Job) -> Job:
    if job.id is not None and transaction.get(job.id) is not None:
        raise JobExistsError(
            f"a job with the id {job.id} is stored already; update replaces it", job_id=job.id
        )
    now = transaction.now
    return transaction.put(job.replace(created_at=now, updated_at=now, attempt=0, claim=0, owner=0))


def _update(transaction: Transaction, job: Job) -> Job:
    stored = None if job.id is None else transaction.get(job.id)
    if stored is None:
        _check_chosen(job)
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
    return transaction.put(
        job.replace(
            created_at=job.created_at or created_at,
            updated_at=transaction.now,
            attempt=attempt,
            claim=claim,
            owner=owner,
        )
    )


def _restore(transaction: Transaction, jobs: list[Job], on_conflict: OnConflict) -> list[Job]:
    stored = []
    for job in jobs:
        taken = transaction.get(id_in(job)) is not None
        if taken and on_conflict == "error":
            raise JobExistsError(
                f"a job with the id {job.id} is stored already; skip it or replace it",
                job_id=job.id,
            )
        if not taken or on_conflict == "replace":
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


def claim(transaction: Transaction, names: frozenset[str | None], limit: int) -> list[Job]:
    """Takes up to `limit` queued jobs of these workers (of all, where there is no name)."""
    before, after = TRANSITIONS["claim"]
    claimable = (
        job
        for job in transaction.table.scan()
        if job.status is before and (not names or job.worker in names)
    )
    return [
        transaction.put(
            job.replace(
                status=after,
                attempt=min(job.attempt + 1, MAX_ATTEMPT),
                claim=transaction.new_claim(),
                owner=OWNER,
                updated_at=transaction.now,
            )
        )
        for job in islice(claimable, limit)
    ]


def _end(transaction: Transaction, verb: str, job: Job, **changes: Any) -> Job:
    before, after = TRANSITIONS[verb]
    stored = transaction.get(id_in(job))
    if stored is None:
        raise JobNotFoundError(f"no job with the id {job.id} is stored", job_id=job.id)
    if stored.status is not before or stored.claim != job.claim:
        raise StaleClaim(
            f"job {job.id} is {stored.status} under claim {stored.claim}, no longer {before} "
            f"under claim {job.claim}",
            job_id=job.id,
            expected=job.claim,
            found=stored.claim,
        )
    if verb == "release":
        changes["attempt"] = max(0, stored.attempt - 1)
    return transaction.put(
        stored.replace(status=after, owner=0, updated_at=transaction.now, **changes)
    )


def _check_job(job: object) -> None:
    if not isinstance(job, Job):
        raise InvalidJobError(f"a job is a Job, not {type(job).__name__}", found=job)


def _check_chosen(job: Job) -> None:
    if job.id is not None:
        check_id(job.id, MAX_CHOSEN_ID)


def _check_claimed(job: Job) -> None:
    _check_job(job)
    check_id(job.id)
    if job.claim == 0:
        raise InvalidTransitionError(
            f"job {job.id} was never claimed, so there is nothing to end", job_id=job.id
        )


# --- Check -------------------------------------------------------------------


def problems(table: Table) -> Iterator[Problem]:
    """Every rule of a table that does not hold. O(n log n)."""
    if table.ids != sorted(table.jobs):
        yield Problem("ids", "the sorted ids are not those of the jobs")
    for job_id, job in table.jobs.items():
        if job.id != job_id:
            yield Problem("id", f"it says that its id is {job.id}", job_id)
        if job_id >= table.next_id:
            yield Problem("next-id", f"the next id is {table.next_id}", job_id)
        if job.claim >= table.next_claim:
            yield Problem("next-claim", f"the next claim is {table.next_claim}", job_id)
        if job.owner and (job.status is not Status.STARTED or not job.claim):
            yield Problem("owner", f"{job.status} under claim {job.claim} has an owner", job_id)
        if job.created_at is None or job.updated_at is None:
            yield Problem("times", "a time is missing", job_id)
