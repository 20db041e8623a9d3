"""Jobs in dictionaries: the table of a MemoryStore, its transactions, what is read of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from quelmdb import codec
from quelmdb.errors import DuplicateJobError, InvalidJobError, StoreFullError
from quelmdb.events import Event, Kind
from quelmdb.job import Job
from quelmdb.persistence import Problem
from quelmdb.reader import IdView, JobView
from quelmdb.status import INCOMPLETE, Status, status_of
from quelmdb.values import (
    ANY,
    MAX_ID,
    AnyWorker,
    WorkerFilter,
    check_id,
    time_of,
    worker_name,
)


class Hold(NamedTuple):
    """What is known of a job while it is started, and forgotten when it no longer is."""

    since: datetime | None = None
    """When it was claimed; None where nobody did."""
    is_cancelled: bool = False
    """Whether its cancellation was asked for."""


NO_HOLD: Final = Hold()
_PAGE: Final = 256  # jobs copied out at a time


class Table:
    """Jobs by id, the next numbers, and what belongs to no job. A stored job is a `Job`
    that has CBOR in the place of its arguments and its result, so that nobody can
    change them."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.holds: dict[int, Hold] = {}  # by id; of jobs that are started
        self.ids: list[int] = []  # those of `jobs`, ascending
        self.paused: frozenset[str | None] = frozenset()
        self.next_id = 1
        self.next_claim = 1

    def started_at(self, job_id: int) -> datetime | None:
        """Since when a job is started; None where it is not."""
        job = self.jobs.get(job_id)
        if job is None or job.status is not Status.STARTED:
            return None
        return self.holds.get(job_id, NO_HOLD).since or job.updated_at

    def copy(self) -> Table:
        """Another table of the same jobs, for a snapshot. O(n)."""
        copy = Table()
        copy.jobs = self.jobs.copy()
        copy.holds = self.holds.copy()
        copy.ids = self.ids.copy()
        copy.paused = self.paused
        copy.next_id, copy.next_claim = self.next_id, self.next_claim
        return copy

    def put(self, job_id: int, job: Job, hold: Hold) -> None:
        """Stores `job`, in the place of what was there."""
        if job_id not in self.jobs:
            insort(self.ids, job_id)
        self.jobs[job_id] = job
        if hold is NO_HOLD:
            self.holds.pop(job_id, None)
        else:
            self.holds[job_id] = hold

    def drop(self, job_id: int) -> None:
        """Deletes the job with that id, if there is one."""
        self.holds.pop(job_id, None)
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
    """Changes beside the table, until `apply` makes all of them. `owner` is the number of
    who makes them; `is_heard`: somebody listens to what becomes of jobs."""

    def __init__(self, table: Table, now: int, owner: int, is_heard: bool) -> None:
        self.table = table
        self.now = time_of(now)
        self.owner = owner
        self.paused = table.paused
        self.events: list[Event] = []
        self._is_heard = is_heard
        self._changes: dict[int, tuple[Job, Hold] | None] = {}
        self._next_id = table.next_id
        self._next_claim = table.next_claim

    def get(self, job_id: int) -> Job | None:
        """The stored job with that id, as this transaction left it."""
        if job_id not in self._changes:
            return self.table.jobs.get(job_id)
        change = self._changes[job_id]
        return None if change is None else change[0]

    def hold(self, job_id: int) -> Hold:
        """What is known of a started job."""
        if job_id not in self._changes:
            return self.table.holds.get(job_id, NO_HOLD)
        change = self._changes[job_id]
        return NO_HOLD if change is None else change[1]

    def jobs(self) -> Iterator[Job]:
        """Every job as this transaction left it, by id."""
        ids = self.table.ids
        if self._changes:
            ids = sorted({*ids, *self._changes})
        return (job for job in map(self.get, ids) if job is not None)

    def put(self, job: Job, hold: Hold = NO_HOLD) -> Job:
        """Stores it, under the next id where it has none, and returns what a caller sees.
        Whoever holds it loses it, unless `hold` says otherwise."""
        if job.id is None:
            job = job.replace(id=self._new_id())
        job_id = id_in(job)
        self._changes[job_id] = (job, hold)
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

    def rival(self, job: Job) -> Job | None:
        """The other job that has not ended and has the unique key of this one."""
        if job.unique_key is None or job.status not in INCOMPLETE:
            return None
        for other in self.jobs():
            if (
                other.unique_key == job.unique_key
                and other.status in INCOMPLETE
                and other.id != job.id
            ):
                return other
        return None

    def refuse_rival(self, job: Job) -> None:
        """Raises `DuplicateJobError` where there is one."""
        rival = self.rival(job)
        if rival is not None:
            raise DuplicateJobError(
                f"job {rival.id}, which has not ended, has the unique key {job.unique_key!r}",
                job_id=rival.id,
                found=job.unique_key,
            )

    def tell(self, kind: Kind, before: Job, after: Job) -> Job:
        """Notes what has become of a job, which it returns. It is not put yet: what is
        known of `before` tells how long it was in its state."""
        if not self._is_heard:
            return after
        since = before.updated_at
        if before.status is Status.STARTED:
            since = self.hold(id_in(before)).since or since
        seconds = 0.0 if since is None else (self.now - since).total_seconds()
        self.events.append(Event(kind, decoded(after), max(seconds, 0.0), before.status))
        return after

    def apply(self) -> None:
        """Makes the changes. Cannot fail half-way."""
        for job_id, change in self._changes.items():
            if change is None:
                self.table.drop(job_id)
            else:
                self.table.put(job_id, *change)
        self.table.next_id = self._next_id
        self.table.next_claim = self._next_claim
        self.table.paused = self.paused

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


def sorted_names(names: Iterable[str | None]) -> list[str | None]:
    """None first, then by name."""
    return sorted(names, key=lambda name: (name is not None, name or ""))


def natural(name: str, value: object) -> int:
    """`value` where it is an int from 0. Raises `InvalidJobError`."""
    if type(value) is not int or value < 0:
        raise InvalidJobError(f"{name} is an int from 0, not {value!r}", found=value)
    return value


# --- Reading -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """The jobs of a listing."""

    statuses: frozenset[Status]
    worker: str | AnyWorker | None
    after: int | None = None
    limit: int | None = None
    reverse: bool = False

    def __contains__(self, job: Job) -> bool:
        return job.status in self.statuses and self.worker in (ANY, job.worker)


def select(
    statuses: Sequence[Status | str],
    worker: WorkerFilter,
    after: int | None = None,
    limit: int | None = None,
    reverse: bool = False,
) -> Selection:
    """What a caller asks for, checked. Raises `InvalidJobError`."""
    return Selection(
        frozenset(map(status_of, statuses or Status)),
        worker if isinstance(worker, AnyWorker) else worker_name(worker),
        check_id(after) if after else None if after is None else natural("after", after),
        None if limit is None else natural("limit", limit),
        reverse,
    )


class View(JobView):
    """The listing of a table that `read` hands to whoever asks, or raises."""

    def __init__(self, read: Callable[[Callable[[Table], Any]], Any], selection: Selection) -> None:
        self._read = read
        self._selection = selection

    def __iter__(self) -> Iterator[Job]:
        return map(decoded, self.stored())

    def __len__(self) -> int:
        return len(self._page(self._selection.after, self._selection.limit))

    def ids(self) -> IdView:
        return _Ids(self)

    def stored(self) -> Iterator[Job]:
        """The listing with arguments still encoded."""
        after, left = self._selection.after, self._selection.limit
        while page := self._page(after, _PAGE if left is None else min(left, _PAGE)):
            for job in page:
                yield job
                self._read(lambda table: None)  # raises where the store or snapshot ended
            after = page[-1].id
            left = None if left is None else left - len(page)

    def _page(self, after: int | None, limit: int | None) -> list[Job]:
        def page(table: Table) -> list[Job]:
            found = (
                job for job in table.scan(after, self._selection.reverse) if job in self._selection
            )
            return list(islice(found, limit))

        jobs: list[Job] = self._read(page)
        return jobs


class _Ids:
    def __init__(self, view: View) -> None:
        self._view = view

    def __iter__(self) -> Iterator[int]:
        return map(id_in, self._view.stored())

    def __len__(self) -> int:
        return len(self._view)


def next_due(table: Table) -> datetime | None:
    """The earliest time at which a scheduled job is due."""
    return min(
        (
            job.run_at
            for job in table.jobs.values()
            if job.status is Status.SCHEDULED and job.run_at
        ),
        default=None,
    )


def is_due(job: Job, now: datetime) -> bool:
    """Whether a job waits for a time that has come."""
    return job.status is Status.SCHEDULED and job.run_at is not None and job.run_at <= now


def held_by_others(table: Table, owner: int) -> Iterator[Job]:
    """What is started by another one than this owner, by id."""
    return (
        job for job in table.scan() if job.status is Status.STARTED and job.owner not in (0, owner)
    )


def may_claim(
    job: Job, names: frozenset[str | None], paused: frozenset[str | None], now: datetime
) -> bool:
    """Whether a claim for these workers (for all, where there is no name) can have it."""
    is_ready = job.status is Status.QUEUED or is_due(job, now)
    return is_ready and job.worker not in paused and (not names or job.worker in names)


# --- Check -------------------------------------------------------------------


def problems(table: Table) -> Iterator[Problem]:
    """Every rule of a table that does not hold. O(n log n)."""
    if table.ids != sorted(table.jobs):
        yield Problem("ids", "the sorted ids are not those of the jobs")
    keys: dict[str, int] = {}
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
        if job.unique_key is not None and job.status in INCOMPLETE:
            other = keys.setdefault(job.unique_key, job_id)
            if other != job_id:
                yield Problem("unique-key", f"job {other} has its unique key", job_id)
    for job_id in table.holds:
        held = table.jobs.get(job_id)
        if held is None or held.status is not Status.STARTED:
            yield Problem("hold", "it is held, and not started", job_id)
